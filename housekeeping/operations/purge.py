"""Delete or archive the rows a policy calls expired: preflight, lease, ledger, plan, windows, totals."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from housekeeping.engine.conducting import Begun, Conduct
from housekeeping.engine.outcomes import ended_by
from housekeeping.engine.pacing import Budget, Rest
from housekeeping.engine.places import placed
from housekeeping.engine.planning import Plan, Planner
from housekeeping.engine.purging import PurgeLoop, Tally, Windows
from housekeeping.engine.reporting import RunReport
from housekeeping.engine.run import Request, Surroundings
from housekeeping.engine.throttling import Hours, Throttle, throttled
from housekeeping.engine.walks import Walk, walk_of
from housekeeping.operations.aftercare import Aftercare
from housekeeping.operations.closing import Closing, PurgeProgress
from housekeeping.operations.dry_run import DryRun
from housekeeping.operations.in_parts import Parts
from housekeeping.operations.partition_steps import Steps
from housekeeping.operations.splitting import SharedRun
from housekeeping.policies.errors import RunInterrupted
from housekeeping.policies.purge import PurgePolicy
from housekeeping.policies.result import RunResult, StopReason
from housekeeping.stores.postgres.archive_indexes import build_indexes
from housekeeping.stores.postgres.archiving import archive_of
from housekeeping.stores.postgres.conditions import Condition, condition_of, sentence
from housekeeping.stores.postgres.connection import connected, guarded, place
from housekeeping.stores.postgres.cutoffs import cutoffs_at, database_now
from housekeeping.stores.postgres.fencing import become_writer
from housekeeping.stores.postgres.ledger_schema import ensure_ledger
from housekeeping.stores.postgres.preflight import Target, resolve
from housekeeping.stores.postgres.shard_ledger import ShardLedger
from housekeeping.stores.postgres.split_ledger import find_split
from housekeeping.stores.postgres.window_ledger import WindowLedger
from housekeeping.stores.postgres.windows import WindowStore

_PASSING = {Condition.CONTENDED, Condition.TOO_SLOW, Condition.CONNECTION_LOST}


def purge(policy: PurgePolicy, request: Request, around: Surroundings) -> RunResult:
    """Delete what `policy` calls expired, move it where the policy archives, or in a dry run count it.

    Returns a result for every way a run can end. Raises PolicyRefused when the policy can't run on
    the database it points at, StoreUnreachable when the database or Redis does not answer at the
    start, and RunInterrupted when `request.will_retry` and running it again would go on.
    """
    with connected(policy.database_url, _application(policy, request)) as connection:
        try:
            return _Purge(policy, request, around, connection).run()
        except DBAPIError as error:
            # Before anything began: a lock on the table or the ledger, a connection that went away.
            if condition_of(error) in _PASSING:
                raise RunInterrupted(run_id=request.run_id, reason=sentence(error)) from error
            raise


def _application(policy: PurgePolicy, request: Request) -> str:
    return f"hk:{policy.operation}:{policy.name}:{str(request.run_id)[:8]}"


class _Purge:
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

    def run(self) -> RunResult:
        if not self._request.dry_run:
            ensure_ledger(self._connection)
        with self._looking():
            now = database_now(self._connection)
            self._hours = Hours(self._policy.pace, now, self._around.clock)
            target = resolve(self._connection, self._policy)
            progress = PurgeProgress(cutoffs_at(self._policy, now))
            if target.in_parts:
                self._parts(target, progress).look()  # refuse before anything has begun
        if self._request.dry_run:
            return self._rehearse(target, now, progress)
        return self._under_lease(target, now, progress)

    def _looking(self) -> AbstractContextManager[None]:
        return guarded(self._connection, self._policy.pace, reading=True, any_plan=True)

    def _under_lease(self, target: Target, now: datetime, progress: PurgeProgress) -> RunResult:
        where = f"{place(self._policy.database_url)}/{target.facts.label}"
        conduct = Conduct(self._policy, self._request, self._around, where, self._connection)
        closing = self._closing(target, progress)
        return conduct.run(
            progress.cutoffs,
            lambda begun: self._attempt(target, now, progress, begun),
            lambda: closing.finish(self._connection, StopReason.LOCKED, None),
        )

    def _closing(self, target: Target, progress: PurgeProgress) -> Closing:
        return Closing(
            self._policy, self._request, self._around.clock, self._begun, target, progress
        )

    def _attempt(
        self, target: Target, now: datetime, progress: PurgeProgress, begun: Begun
    ) -> RunResult:
        if set(begun.started.cutoffs) == set(progress.cutoffs):
            progress.cutoffs = begun.started.cutoffs
        reason, error = ended_by(
            lambda: self._delete(target, now, progress, begun), self._policy, self._request
        )
        result = self._closing(target, progress).finish(self._connection, reason, error)
        return Aftercare(
            self._policy,
            target,
            _application(self._policy, self._request),
            begun.objection,
            self._around.clock,
            self._begun,
        ).of(result)

    def _delete(
        self,
        target: Target,
        now: datetime,
        progress: PurgeProgress,
        begun: Begun,
    ) -> StopReason:
        if (reason := begun.objection()) is not None:
            return reason
        if (closed := self._hours.closed()) is not None:
            progress.waited.ended_for = closed
            return StopReason.THROTTLED
        run_id = str(self._request.run_id)
        with placed(self._policy, run_id, self._around, begun.objection) as refused:
            return refused or self._delete_in_place(target, now, progress, begun)

    def _delete_in_place(
        self, target: Target, now: datetime, progress: PurgeProgress, begun: Begun
    ) -> StopReason:
        run_id = self._request.run_id
        writer = become_writer(self._connection, target.facts, run_id, self._policy.pace)
        # Only now can no older run commit another window, so their sums are final.
        begun.record.settle_abandoned(self._connection)
        progress.ledger = writer.ledger
        progress.tally = Tally(sizes=dict(writer.sizes))
        if begun.resumed:
            self._take_up(progress)
        if target.in_parts:
            reason = self._in_parts(target, now, progress, begun)
        else:
            reason = self._walk(target, now, progress, begun)
        if target.layout is not None and reason is StopReason.EXHAUSTED:
            progress.warnings += build_indexes(self._connection, self._policy, target)
        return reason

    def _walk(
        self,
        target: Target,
        now: datetime,
        progress: PurgeProgress,
        begun: Begun,
        *,
        leaf: bool = False,
    ) -> StopReason:
        """Clear the windows of one table, which may be a leaf of the one the run is on."""
        assert progress.ledger is not None
        if begun.resumed and not leaf:
            with self._looking():
                progress.split = find_split(self._connection, self._request.run_id)
        planned_at = now if progress.split is None else progress.split.planned_at
        plan = self._plan(target, planned_at, progress)
        archive = archive_of(target, self._request.run_id, planned_at)

        def store(ledger: WindowLedger | ShardLedger) -> WindowStore:
            return WindowStore(self._connection, target, ledger, archive)

        shared = SharedRun(
            self._connection, self._policy, self._request, self._around, self._budget,
            target, begun, progress, self._report, store,
        )  # fmt: skip
        in_ranges = not leaf and shared.begin(planned_at)
        if not leaf:
            self._report.started(target.facts.label, plan, resumed=begun.resumed)
        with throttled(
            self._policy, self._around, self._connection, target.tables, self._hours, self._budget,
            begun.objection, self._report, progress.waited,
        ) as throttle:  # fmt: skip
            if in_ranges:
                return shared.run(throttle)
            walks = [walk_of(walk, target.facts, self._connection) for walk in plan.walks]
            if begun.resumed:
                walks = self._skip_done(walks, progress)
            windows = store(progress.ledger)
            return self._loop(windows, progress, begun.objection, throttle).run(walks)

    def _in_parts(
        self, target: Target, now: datetime, progress: PurgeProgress, begun: Begun
    ) -> StopReason:
        """Let whole parts go, and clear the others like tables of their own."""
        assert progress.ledger is not None
        assert progress.tally is not None
        tally, budget, pace = progress.tally, self._budget, self._policy.pace
        steps = Steps(
            self._connection,
            self._policy,
            progress.ledger,
            tally,
            self._report,
            Rest(pace.duty, self._around.clock, begun.objection),
            lambda: begun.objection() or budget.spent(tally.rows) or self._hours_over(),
        )

        def walk(leaf: Target, ledger: WindowLedger) -> StopReason:
            progress.ledger, self._probing_since = ledger, self._around.clock.monotonic()
            return self._walk(leaf, now, progress, begun, leaf=True)

        try:
            return self._parts(target, progress).purge(steps, self._report, begun, walk)
        finally:
            progress.warnings += tuple(steps.warnings)

    def _hours_over(self) -> StopReason | None:
        return StopReason.TIME_BUDGET if self._hours.closed() else None

    def _parts(self, target: Target, progress: PurgeProgress) -> Parts:
        limited = self._request.limit is not None or self._policy.pace.row_budget is not None
        return Parts(self._connection, target, progress.cutoffs, limited=limited)

    def _plan(self, target: Target, now: datetime, progress: PurgeProgress) -> Plan:
        # What was cut into stretches of the heap goes on along the heap.
        walker = self._request.walker if progress.split is None else "heap"
        with self._looking():
            progress.plan = Planner(self._connection, target, now, progress.cutoffs, walker).plan()
        if progress.tally is not None:
            progress.tally.phases.probe += self._around.clock.monotonic() - self._probing_since
        return progress.plan

    def _take_up(self, progress: PurgeProgress) -> None:
        """Count on from what an earlier attempt committed."""
        assert progress.ledger is not None
        assert progress.tally is not None
        with self._looking():
            summary = progress.ledger.summary(self._connection)
        progress.tally.number = summary.last_number
        progress.tally.rows = summary.rows

    def _skip_done(self, walks: list[Walk], progress: PurgeProgress) -> list[Walk]:
        """Go on after the last window an earlier attempt committed."""
        assert progress.ledger is not None
        with self._looking():
            last = progress.ledger.done_to(self._connection)
        names = [walk.name for walk in walks]
        if last is None or last[0] not in names:
            return walks
        remaining = walks[names.index(last[0]) :]
        remaining[0].skip_to(last[1])
        return remaining

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

    def _rehearse(self, target: Target, now: datetime, progress: PurgeProgress) -> RunResult:
        tally, whole = Tally(), None
        progress.tally = tally
        tables: tuple[Target, ...] = (target,)
        if target.in_parts:
            with self._looking():
                whole = self._parts(target, progress).rehearse(tally)
            tables = whole.leaves
            progress.warnings += whole.warnings
        planned = [(table, self._plan(table, now, progress)) for table in tables]
        return DryRun(
            connection=self._connection,
            policy=self._policy,
            request=self._request,
            around=self._around,
            target=target,
            plan=whole.plan if whole else planned[0][1],
            tables=planned,
            whole=whole.whole if whole else (),
            now=now,
            report=self._report,
            closing=self._closing(target, progress),
            tally=tally,
        ).run()
