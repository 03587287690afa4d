"""Taking the rows of one run: its limit, windows, and whole parts of a table."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from housekeeping.engine.conducting import Begun
from housekeeping.engine.limits import Limit, LimitedWindows
from housekeeping.engine.pacing import Budget, Rest
from housekeeping.engine.planning import Plan, Planner
from housekeeping.engine.purging import PurgeLoop, Windows
from housekeeping.engine.reporting import RunReport
from housekeeping.engine.run import Request, Surroundings
from housekeeping.engine.throttling import Hours, Throttle, throttled
from housekeeping.engine.walks import Walk, walk_of
from housekeeping.operations.closing import PurgeProgress
from housekeeping.operations.partitions.in_parts import Parts
from housekeeping.operations.partitions.steps import WALK, Steps
from housekeeping.operations.shared_runs.splitting import SharedRun
from housekeeping.policies.errors import TableBlocked
from housekeeping.policies.purge import PurgePolicy
from housekeeping.policies.result import StopReason
from housekeeping.stores.postgres.archiving import archive_of
from housekeeping.stores.postgres.connection import guarded
from housekeeping.stores.postgres.fencing import fenced
from housekeeping.stores.postgres.preflight import Target
from housekeeping.stores.postgres.rewalking import walk_again
from housekeeping.stores.postgres.shard_ledger import ShardLedger
from housekeeping.stores.postgres.split_ledger import (
    close_split,
    find_split,
    last_window_alone,
)
from housekeeping.stores.postgres.window_ledger import WindowLedger
from housekeeping.stores.postgres.windows import WindowStore


class Removal:
    """How one run removes what has expired; a dry run plans by the same."""

    _hours: Hours
    """by the database's clock, known once it was asked"""

    def __init__(
        self,
        policy: PurgePolicy,
        request: Request,
        around: Surroundings,
        connection: Connection,
    ) -> None:
        self._policy = policy
        self._request = request
        self._around = around
        self._connection = connection
        self._report = RunReport(policy, request, around.events)
        self._begun = around.clock.monotonic()
        self._probing_since = self._begun
        self._budget = Budget(policy.pace, request.limit, around.clock)

    def _looking(self) -> AbstractContextManager[None]:
        return guarded(self._connection, self._policy.pace, reading=True, any_plan=True)

    def _remove(
        self, target: Target, now: datetime, progress: PurgeProgress, begun: Begun
    ) -> StopReason:
        assert progress.tally is not None
        limit = None
        if self._limited:
            limit = Limit(self._connection, target, progress.tally)
        if target.in_parts:
            return self._in_parts(target, now, progress, begun, limit)
        return self._walk(target, now, progress, begun, limit)

    @property
    def _limited(self) -> bool:
        return self._policy.allowance.given and not self._request.confirmed

    @property
    def _row_limited(self) -> bool:
        return self._request.limit is not None or self._policy.pace.row_budget is not None

    def _rows_left(self, progress: PurgeProgress) -> int | None:
        assert progress.tally is not None
        return self._budget.rows_left(progress.tally.rows)

    def _walk(
        self,
        target: Target,
        now: datetime,
        progress: PurgeProgress,
        begun: Begun,
        limit: Limit | None,
        *,
        leaf: bool = False,
    ) -> StopReason:
        """Clear the windows of one table, which may be a leaf of the one the run is on."""
        assert progress.ledger is not None
        resumed = begun.resumed or begun.again
        if resumed and not leaf:
            self._find_split(target, progress, counting=limit is not None or self._row_limited)
        planned_at = now if progress.split is None else progress.split.planned_at
        plan = self._plan(target, planned_at, progress)
        if limit is not None and not leaf:
            limit.check(plan, [walk.predicate for walk in plan.walks], self._rows_left(progress))
        archive = archive_of(target, self._request.run_id, planned_at)

        def store(ledger: WindowLedger | ShardLedger) -> WindowStore:
            return WindowStore(self._connection, target, ledger, archive)

        shared = SharedRun(
            self._connection, self._policy, self._request, self._around, self._budget,
            target, begun, progress, self._report, store,
        )  # fmt: skip
        # A limit is counted by one hand.
        in_ranges = not leaf and limit is None and shared.begin(planned_at)
        if not leaf:
            self._report.started(target.facts.label, plan, resumed=resumed)
        with self._throttled(target, progress, begun) as throttle:
            if in_ranges:
                return shared.run(throttle)
            walks = [walk_of(walk, target.facts, self._connection) for walk in plan.walks]
            if resumed:
                walks = self._skip_done(walks, progress)
            windows: Windows = store(progress.ledger)
            if limit is not None:
                windows = LimitedWindows(windows, limit, target)
            return self._loop(windows, progress, begun.objection, throttle).run(walks)

    def _throttled(
        self, target: Target, progress: PurgeProgress, begun: Begun
    ) -> AbstractContextManager[Throttle]:
        return throttled(
            self._policy, self._around, self._connection, target.tables, self._hours, self._budget,
            begun.objection, self._report, progress.waited,
        )  # fmt: skip

    def _find_split(self, target: Target, progress: PurgeProgress, *, counting: bool) -> None:
        """Find what an earlier attempt cut; where rows are counted, take it back from the others."""
        assert progress.ledger is not None
        assert progress.tally is not None
        run_id = self._request.run_id
        with self._looking():
            progress.split = find_split(self._connection, run_id)
        if progress.split is None or not counting:
            return
        with fenced(self._connection, target.facts, self._policy.pace):
            close_split(self._connection, run_id)
        progress.split = None
        with self._looking():
            progress.tally.rows = progress.ledger.summary(self._connection).rows
            progress.tally.number = last_window_alone(self._connection, run_id)

    def _in_parts(
        self,
        target: Target,
        now: datetime,
        progress: PurgeProgress,
        begun: Begun,
        limit: Limit | None,
    ) -> StopReason:
        """Let whole parts go, and clear the others like tables of their own."""
        if limit is not None:
            self._check_parts(target, now, progress, limit)
        assert progress.tally is not None
        tally = progress.tally
        with self._throttled(target, progress, begun) as throttle:
            steps = self._steps(target, progress, begun, throttle, counting=limit is not None)

            def walk(leaf: Target, ledger: WindowLedger) -> StopReason:
                progress.ledger, progress.plan = ledger, None
                self._probing_since, gone = self._around.clock.monotonic(), tally.rows
                try:
                    return self._walk(leaf, now, progress, begun, limit, leaf=True)
                except (TableBlocked, DBAPIError) as error:
                    expected = progress.plan.estimate if progress.plan else 0
                    steps.passed_over(leaf, expected - (tally.rows - gone), error)
                    return StopReason.EXHAUSTED  # of what can be reached

            try:
                return self._parts(target, progress).purge(steps, self._report, begun, walk)
            finally:
                progress.warnings += tuple(steps.warnings)
                progress.counted = limit is not None and not begun.resumed

    def _steps(
        self,
        target: Target,
        progress: PurgeProgress,
        begun: Begun,
        throttle: Throttle,
        *,
        counting: bool,
    ) -> Steps:
        assert progress.ledger is not None
        assert progress.tally is not None
        tally = progress.tally

        def reason_to_stop() -> StopReason | None:
            return begun.objection() or self._budget.spent(tally.rows) or self._hours_over(progress)

        return Steps(
            self._connection,
            self._policy,
            progress.ledger,
            tally,
            self._report,
            self._around.clock,
            Rest(self._policy.pace.duty, self._around.clock, begun.objection),
            throttle,
            reason_to_stop,
            target.holds.version,
            counting=counting,
            resumed=begun.resumed or begun.again,
        )

    def _check_parts(
        self, target: Target, now: datetime, progress: PurgeProgress, limit: Limit
    ) -> None:
        """Count what has expired in all parts together before the first of them goes whole."""
        with self._looking():
            plan = self._parts(target, progress).look().plan
            predicate = self._planner(target, now, progress).predicate()
        limit.check(plan, [predicate], self._rows_left(progress))

    def _planner(self, target: Target, now: datetime, progress: PurgeProgress) -> Planner:
        # What was cut into stretches of the heap goes on along the heap.
        walker = self._request.walker if progress.split is None else "heap"
        return Planner(self._connection, target, now, progress.cutoffs, walker)

    def _hours_over(self, progress: PurgeProgress) -> StopReason | None:
        if (closed := self._hours.closed()) is None:
            return None
        progress.waited.ended_for = closed
        return StopReason.TIME_BUDGET

    def _parts(self, target: Target, progress: PurgeProgress) -> Parts:
        return Parts(self._connection, target, progress.cutoffs, limited=self._row_limited)

    def _plan(self, target: Target, now: datetime, progress: PurgeProgress) -> Plan:
        with self._looking():
            progress.plan = self._planner(target, now, progress).plan()
        if progress.tally is not None:
            progress.tally.phases.probe += self._around.clock.monotonic() - self._probing_since
        return progress.plan

    def _skip_done(self, walks: list[Walk], progress: PurgeProgress) -> list[Walk]:
        """Go on after the last window an earlier attempt committed."""
        assert progress.ledger is not None
        names = [walk.name for walk in walks]
        with guarded(self._connection, self._policy.pace, any_plan=True):
            last = progress.ledger.done_to(self._connection)
            remaining = walks
            if last is not None and last[0] in names:
                remaining = walks[names.index(last[0]) :]
            whole = last is None or last[0] not in names or not remaining[0].skip_to(last[1])
            target = progress.ledger.target
            walk_again(self._connection, self._request.run_id, target, whole=whole, but=WALK)
        return walks if whole else remaining

    def _loop(
        self,
        windows: Windows,
        progress: PurgeProgress,
        objection: Callable[[], StopReason | None],
        throttle: Throttle | None = None,
    ) -> PurgeLoop:
        assert progress.tally is not None
        pace, clock = self._policy.pace, self._around.clock
        rest = Rest(pace.duty, clock, objection)
        return PurgeLoop(
            windows,
            pace,
            self._budget,
            rest,
            clock,
            objection,
            self._report,
            progress.tally,
            throttle,
        )
