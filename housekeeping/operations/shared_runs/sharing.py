"""Share a run somebody else owns: claim ranges of it until none is left, then leave.

Whoever comes late, twice or with another policy than the owner's finds nothing to do.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from sqlalchemy import Connection

from housekeeping.engine.connecting import application_of
from housekeeping.engine.outcomes import ended_by
from housekeeping.engine.pacing import Budget, Rest
from housekeeping.engine.places import placed
from housekeeping.engine.planning import HeapPlan, Planner
from housekeeping.engine.purging import PurgeLoop, Tally, Windows
from housekeeping.engine.reporting import RunReport
from housekeeping.engine.run import Objection, Request, Surroundings
from housekeeping.engine.shards import Membership, ShardWorker, digest_of, membership
from housekeeping.engine.throttling import Hours, Throttle, Waited, throttled
from housekeeping.policies.purge import PurgePolicy
from housekeeping.policies.result import StopReason
from housekeeping.stores.postgres.archiving import archive_of
from housekeeping.stores.postgres.connection import connected, guarded
from housekeeping.stores.postgres.cutoffs import database_now
from housekeeping.stores.postgres.ledger_schema import ledger_missing
from housekeeping.stores.postgres.preflight import Target, resolve
from housekeeping.stores.postgres.shard_ledger import ShardClaims, ShardLedger
from housekeeping.stores.postgres.split_ledger import Split, find_split
from housekeeping.stores.postgres.windows import HoldsChanged, WindowStore

_log = logging.getLogger("housekeeping.shards")
_PATIENCE = timedelta(seconds=60)  # for a place; then this process is better used


@dataclass(frozen=True)
class Shared:
    """What one worker did for a run it does not own. Its rows are in that run's total."""

    rows: int
    ranges: int
    ended: str
    """why it left"""


def share(policy: PurgePolicy, run_id: UUID, run_by: str, around: Surroundings) -> Shared:
    """Work on the ranges of a run until none is left, or somebody objects.

    Raises nothing that ends the run: what fails here is left to its owner, who meets it again and
    tells. Raises PolicyRefused and StoreUnreachable where it can't even begin.
    """
    with connected(policy.database_url, application_of(policy, run_id)) as connection:
        return _Sharing(policy, run_id, run_by, around, connection).run()


@dataclass(frozen=True)
class _Found:
    """A run that can be shared, as this worker sees it."""

    split: Split
    target: Target
    plan: HeapPlan
    now: datetime


class _Sharing:
    def __init__(
        self,
        policy: PurgePolicy,
        run_id: UUID,
        run_by: str,
        around: Surroundings,
        connection: Connection,
    ) -> None:
        self._policy = policy
        self._request = Request(run_by=run_by, run_id=run_id)
        self._around = around
        self._connection = connection
        self._report = RunReport(policy, self._request, around.events)
        self._tally = Tally()
        self._ranges = 0
        self._holds_changed = False

    def run(self) -> Shared:
        while True:
            with guarded(self._connection, self._policy.pace, reading=True, any_plan=True):
                found = self._look()
            if isinstance(found, str):
                return Shared(self._tally.rows, self._ranges, found)
            self._holds_changed = False
            reason, error = ended_by(partial(self._work, found), self._policy, self._request)
            if self._holds_changed:
                continue
            if error is not None:
                _log.warning("%s: a worker left a shared run: %s", self._policy.name, error)
            return Shared(self._tally.rows, self._ranges, error or reason.value)

    def _look(self) -> _Found | str:
        """Look up what is to be done; return why nothing is, where that is so."""
        split = None
        if not ledger_missing(self._connection):
            split = find_split(self._connection, self._request.run_id)
        if split is None or not split.is_open:
            return "the run has ended"
        if split.digest != digest_of(self._policy):
            _log.warning(
                "%s: this worker's policy is not the one the run was begun with; it keeps its "
                "hands off until all workers have the same configuration",
                self._policy.name,
            )
            return "another policy than the run's"
        if split.time_left <= timedelta(0):
            return StopReason.TIME_BUDGET.value
        target = resolve(self._connection, self._policy)
        if target.facts.filenode != split.filenode:
            return f"{target.facts.label} was rewritten meanwhile"
        planner = Planner(self._connection, target, split.planned_at, split.cutoffs, "heap")
        (plan,) = planner.plan().walks
        assert isinstance(plan, HeapPlan)
        return _Found(split, target, plan, database_now(self._connection))

    def _work(self, found: _Found) -> StopReason:
        policy, around, run_id = self._policy, self._around, str(self._request.run_id)
        with membership(self._request.run_id, self._request.run_by, policy.pace, around) as ours:
            objection = Objection(policy.task, run_id, ours.lease, around.control)
            with placed(policy, run_id, around, objection, _PATIENCE) as refused:
                return refused or self._share(found, ours, objection)

    def _share(
        self, found: _Found, ours: Membership, objection: Callable[[], StopReason | None]
    ) -> StopReason:
        hours = Hours(self._policy.pace, found.now, self._around.clock)
        with throttled(
            self._policy, self._around, self._connection, found.target.tables, hours,
            self._budget(found), objection, self._report, Waited(),
        ) as throttle:  # fmt: skip
            worker = self._worker(found, ours, throttle, objection)
            try:
                return worker.work() or StopReason.EXHAUSTED
            except HoldsChanged:
                # The window that noticed has done nothing; its range goes back meanwhile.
                self._holds_changed = True
                return StopReason.STOPPED
            finally:
                self._ranges += worker.ranges_done

    def _budget(self, found: _Found) -> Budget:
        """Return what is left of the owner's time; its rows are the owner's matter."""
        pace = replace(self._policy.pace, time_budget=found.split.time_left, row_budget=None)
        return Budget(pace, None, self._around.clock)

    def _worker(
        self,
        found: _Found,
        ours: Membership,
        throttle: Throttle,
        objection: Callable[[], StopReason | None],
    ) -> ShardWorker:
        clock, facts, split, pace = (
            self._around.clock, found.target.facts, found.split, self._policy.pace,
        )  # fmt: skip
        budget, rest = self._budget(found), Rest(pace.duty, clock, objection)
        archive = archive_of(found.target, split.run_id, split.planned_at)

        def store(ledger: ShardLedger) -> Windows:
            return WindowStore(self._connection, found.target, ledger, archive)

        def loop(windows: Windows) -> PurgeLoop:
            return PurgeLoop(
                windows, pace, budget, rest, clock, objection, self._report, self._tally, throttle
            )

        return ShardWorker(
            self._connection,
            facts.label,
            facts.oid,
            found.plan,
            ShardClaims(split.run_id, ours.worker, split.digest),
            ours,
            store,
            loop,
            self._tally,
        )
