"""A run that several workers share, seen from the one that owns it: cut, recruit, work, see it end.

Whoever owns the run works on its ranges like everybody else. So it ends also where nobody comes to
help, and a single worker process never waits for itself.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection

from housekeeping.engine.conducting import Begun
from housekeeping.engine.pacing import Budget, Rest
from housekeeping.engine.planning import HeapPlan
from housekeeping.engine.purging import PurgeLoop, Tally, Windows
from housekeeping.engine.reporting import RunReport
from housekeeping.engine.run import Request, Surroundings
from housekeeping.engine.shards import (
    CLAIM_PACE,
    LEAST_BLOCKS,
    Membership,
    ShardWorker,
    digest_of,
    membership,
    ranges_of,
)
from housekeeping.engine.throttling import Throttle
from housekeeping.operations.closing import PurgeProgress
from housekeeping.operations.partitions.steps import WALK
from housekeeping.policies.policy import Policy
from housekeeping.policies.result import StopReason
from housekeeping.stores.postgres.connection import guarded
from housekeeping.stores.postgres.fencing import fenced
from housekeeping.stores.postgres.preflight import Target
from housekeeping.stores.postgres.probes import blocks_now
from housekeeping.stores.postgres.ranges import Range
from housekeeping.stores.postgres.rewalking import walk_again
from housekeeping.stores.postgres.shard_ledger import ShardClaims, ShardLedger
from housekeeping.stores.postgres.split_ledger import SplitLedger, Standing, standing_of
from housekeeping.stores.postgres.windows import WindowOutcome

_log = logging.getLogger("housekeeping.shards")
_FIRST_LOOK_SECONDS = 0.02  # most workers are done with their last window by then
_LOOK_EVERY_SECONDS = 0.5
_TELL_EVERY_SECONDS = 1.0


@dataclass(frozen=True)
class SharedRun:
    """The owner's part in a split run."""

    connection: Connection
    policy: Policy
    request: Request
    around: Surroundings
    budget: Budget
    target: Target
    begun: Begun
    progress: PurgeProgress
    report: RunReport
    store: Callable[[ShardLedger], Windows]

    def begin(self, planned_at: datetime) -> bool:
        """Cut the run into ranges, or take up what an earlier attempt has cut.

        False where it is to go on in one piece.
        """
        split = self.progress.split
        if split is None and not self._worth_splitting():
            return False
        self.progress.shared = True
        if split is None or split.filenode != self.target.facts.filenode:
            return self._cut(planned_at)
        with fenced(self.connection, self.target.facts, self.policy.pace):
            self._ledger.resume(
                self.connection,
                digest_of(self.policy),
                self.progress.cutoffs,
                self.policy.pace.time_budget,
            )
        return True

    def _worth_splitting(self) -> bool:
        """Say whether a run that begins should be shared.

        Only along the heap: an index is walked where little expired. Not with a limit on rows,
        which only one hand can count; nor where nobody could come. An attempt that goes on where
        one in a single piece left does so too.
        """
        pace, plan = self.policy.pace, self.progress.plan
        limited = self.request.limit is not None or pace.row_budget is not None
        alone = self.around.recruit is None or pace.workers == 1
        if plan is None or alone or limited or self.begun.resumed:
            return False
        (first, *_) = plan.walks
        large = isinstance(first, HeapPlan) and first.blocks >= 2 * LEAST_BLOCKS
        return large and plan.estimate >= pace.split_above_rows

    @property
    def _heap(self) -> HeapPlan:
        assert self.progress.plan is not None
        (heap,) = self.progress.plan.walks
        assert isinstance(heap, HeapPlan)
        return heap

    def _cut(self, planned_at: datetime) -> bool:
        with fenced(self.connection, self.target.facts, self.policy.pace):
            if self.progress.split is not None:  # the table was rewritten, and is walked anew
                assert self.progress.ledger is not None
                target = self.progress.ledger.target
                walk_again(self.connection, self.request.run_id, target, whole=True, but=WALK)
            return self._ledger.write(
                self.connection,
                digest=digest_of(self.policy),
                cutoffs=self.progress.cutoffs,
                planned_at=planned_at,
                filenode=self.target.facts.filenode,
                budget=self.policy.pace.time_budget,
                ranges=ranges_of(self._heap.blocks, self.policy.pace.workers),
            )

    def run(self, throttle: Throttle) -> StopReason:
        """Work until every range is done, whoever does it; return why it ended.

        Raises what PurgeLoop raises.
        """
        pace, clock = self.policy.pace, self.around.clock
        with membership(self.request.run_id, self.request.run_by, pace, self.around) as ours:

            def objection() -> StopReason | None:
                ours.lease.check()
                return self.begun.objection()

            rest = Rest(pace.duty, clock, objection)
            worker = self._worker(ours, throttle, rest, objection)
            self._recruit(worker.claims, ours)
            return self._until_done(
                worker, lambda: objection() or self.budget.spent(0), Rest(1.0, clock, objection)
            )

    @property
    def _ledger(self) -> SplitLedger:
        assert self.progress.ledger is not None
        return SplitLedger(self.request.run_id, self.target.facts.label, self.progress.ledger.fence)

    @property
    def _tally(self) -> Tally:
        assert self.progress.tally is not None
        return self.progress.tally

    def _worker(
        self,
        ours: Membership,
        throttle: Throttle,
        rest: Rest,
        objection: Callable[[], StopReason | None],
    ) -> ShardWorker:
        pace, clock = self.policy.pace, self.around.clock
        report = _SharedReport(self.report, self._standing, clock.monotonic)
        return ShardWorker(
            self.connection,
            self.target.facts.label,
            self.target.facts.oid,
            self._heap,
            ShardClaims(self.request.run_id, ours.worker, digest_of(self.policy)),
            ours,
            self.store,
            lambda windows: PurgeLoop(
                windows, pace, self.budget, rest, clock, objection, report, self._tally, throttle
            ),
            self._tally,
        )

    def _recruit(self, claims: ShardClaims, ours: Membership) -> None:
        """Ask for as many as are missing: those an earlier attempt sent for may still be at it."""
        if self.around.recruit is None:
            return
        with guarded(self.connection, CLAIM_PACE, reading=True, any_plan=True):
            others = claims.other_claimants(self.connection)
        at_it = 1 + sum(ours.alive(worker) for worker in others)
        wanted = min(self.policy.pace.workers, self.around.workers_per_database) - at_it
        if wanted > 0:
            self.around.recruit(self.policy, self.request.run_id, wanted)

    def _until_done(
        self, worker: ShardWorker, reason_to_stop: Callable[[], StopReason | None], rest: Rest
    ) -> StopReason:
        looked_behind_the_end = False
        pause = _FIRST_LOOK_SECONDS
        while True:
            if (reason := worker.work() or reason_to_stop()) is not None:
                return reason
            standing = self._standing()
            if not standing.unfinished:
                if looked_behind_the_end or not self._look_behind_the_end():
                    return StopReason.EXHAUSTED
                looked_behind_the_end = True
                continue
            cause = f"other workers on the last {standing.unfinished} ranges"
            self.report.awaiting(cause, standing.rows, standing.fraction)
            self._tally.phases.wait += rest.pause(pause)
            pause = min(2 * pause, _LOOK_EVERY_SECONDS)

    def _look_behind_the_end(self) -> bool:
        """Add the blocks the table has grown by: rows updated meanwhile may have moved there."""
        end = blocks_now(self.connection, self.target.facts)
        with fenced(self.connection, self.target.facts, self.policy.pace):
            return self._ledger.extend(self.connection, end)

    def _standing(self) -> Standing:
        with guarded(self.connection, CLAIM_PACE, reading=True, any_plan=True):
            return standing_of(self.connection, self.request.run_id)


class _SharedReport:
    """Tells how far all workers are, at most once a second, where a lone run tells its own."""

    def __init__(
        self, report: RunReport, standing: Callable[[], Standing], monotonic: Callable[[], float]
    ) -> None:
        self._report = report
        self._standing = standing
        self._monotonic = monotonic
        self._asked = float("-inf")
        self._known = Standing(0, 0, 0, 0)

    def committed(
        self,
        outcome: WindowOutcome,
        tally: Tally,
        fraction: float | None,  # noqa: ARG002 - of one range
    ) -> None:
        now = self._monotonic()
        if now - self._asked >= _TELL_EVERY_SECONDS:
            self._known, self._asked = self._standing(), now
        told = replace(tally, rows=self._known.rows)
        self._report.committed(outcome, told, self._known.fraction)

    def shrunk(self, window: Range, cause: str) -> None:
        self._report.shrunk(window, cause)

    def passed(self, window: Range, cause: str, rows: int) -> None:
        self._report.passed(window, cause, rows)
