"""Delete or archive the rows a policy calls expired: preflight, lease, ledger, plan, windows, totals."""

from dataclasses import replace
from datetime import datetime

from housekeeping.engine.conducting import Begun, Conduct
from housekeeping.engine.connecting import application_of, connected_for
from housekeeping.engine.limits import Expectation, Limit
from housekeeping.engine.outcomes import ended_by
from housekeeping.engine.places import placed
from housekeeping.engine.purging import Tally
from housekeeping.engine.run import Request, Surroundings
from housekeeping.engine.throttling import Hours
from housekeeping.operations.aftercare import Aftercare
from housekeeping.operations.closing import Closing, PurgeProgress
from housekeeping.operations.dry_runs.dry_run import DryRun
from housekeeping.operations.removal import Removal
from housekeeping.policies.errors import (
    AllowanceExceeded,
    HoldUnusable,
    PolicyRefused,
    RunHalted,
    RunInterrupted,
    TableBlocked,
)
from housekeeping.policies.purge import PurgePolicy
from housekeeping.policies.result import RunResult, StopReason
from housekeeping.stores.postgres.archive_indexes import build_indexes
from housekeeping.stores.postgres.connection import place
from housekeeping.stores.postgres.cutoffs import cutoffs_at, database_now
from housekeeping.stores.postgres.fencing import become_writer
from housekeeping.stores.postgres.ledger_schema import ensure_ledger
from housekeeping.stores.postgres.preflight import Target, resolve
from housekeeping.stores.postgres.windows import HoldsChanged


def purge(policy: PurgePolicy, request: Request, around: Surroundings) -> RunResult:
    """Delete what `policy` calls expired, move it where the policy archives, or in a dry run count it.

    Returns a result for every way a run can end. Raises PolicyRefused when the policy can't run on
    the database it points at, StoreUnreachable when the database or Redis does not answer at the
    start, and RunInterrupted when `request.will_retry` and running it again would go on.
    """
    with connected_for(policy, request) as connection:
        try:
            return _Purge(policy, request, around, connection).run()
        except TableBlocked as blocked:
            # A partition nobody may even look at: what goes can't be planned.
            reason = f"{blocked.facts['table']} or a partition of it is locked by another session"
            raise RunInterrupted(run_id=request.run_id, reason=reason) from blocked


class _Purge(Removal):
    """One run, from preflight to result."""

    def run(self) -> RunResult:
        if not self._request.dry_run:
            ensure_ledger(self._connection)
        with self._looking():
            now = database_now(self._connection)
            self._hours = Hours(self._policy.pace, now, self._around.clock)
            target = resolve(self._connection, self._policy)
            progress = PurgeProgress(cutoffs_at(self._policy, now), holds=target.holds_told)
            if target.in_parts:
                self._parts(target, progress).look()  # refuse before anything has begun
        if self._request.dry_run:
            return self._rehearse(target, now, progress)
        return self._under_lease(target, now, progress)

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
        # A resumed run goes by its first attempt's; what its policy keeps by now stays, too.
        progress.cutoffs = {
            reason: min(cutoff, begun.started.cutoffs.get(reason, cutoff))
            for reason, cutoff in progress.cutoffs.items()
        }
        progress.taken_up = begun.resumed
        reason, error = ended_by(
            lambda: self._delete(target, now, progress, begun), self._policy, self._request
        )
        result = self._closing(target, progress).finish(self._connection, reason, error)
        return Aftercare(
            self._policy,
            target,
            application_of(self._policy, self._request.run_id),
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
            if refused is StopReason.THROTTLED:
                progress.waited.ended_for = (
                    f"none of {self._around.workers_per_database} places on "
                    f"{place(self._policy.database_url)} fell free in time"
                )
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
        while True:
            progress.ledger = writer.ledger
            try:
                reason = self._remove(target, now, progress, begun)
                break
            except HoldsChanged:
                # The window that noticed has done nothing; those before knew all there were.
                target = self._look_again(progress)
                begun = replace(begun, again=True)
            except HoldUnusable as refused:
                # Placed by hand between two looks at a table in parts.
                raise RunHalted(reason=refused.message) from refused
        if target.layout is not None and reason is StopReason.EXHAUSTED:
            progress.warnings += build_indexes(self._connection, self._policy, target)
        return reason

    def _look_again(self, progress: PurgeProgress) -> Target:
        """Resolve the policy anew, with the holds there are by now."""
        try:
            with self._looking():
                target = resolve(self._connection, self._policy)
        except PolicyRefused as refused:
            raise RunHalted(reason=refused.message) from refused
        progress.holds = target.holds_told
        return target

    def _take_up(self, progress: PurgeProgress) -> None:
        """Count on from what an earlier attempt committed."""
        assert progress.ledger is not None
        assert progress.tally is not None
        with self._looking():
            summary = progress.ledger.summary(self._connection)
        progress.tally.number = summary.last_number
        progress.tally.rows = summary.rows

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
        plan = whole.plan if whole else planned[0][1]
        return DryRun(
            connection=self._connection,
            policy=self._policy,
            request=self._request,
            around=self._around,
            target=target,
            plan=plan,
            tables=planned,
            whole=whole.whole if whole else (),
            now=now,
            report=self._report,
            closing=self._closing(target, progress),
            tally=tally,
            exceeded=lambda rows: self._exceeded(target, now, progress, plan, rows),
        ).run()

    def _exceeded(
        self,
        target: Target,
        now: datetime,
        progress: PurgeProgress,
        plan: Expectation,
        rows: int | None,
    ) -> AllowanceExceeded | None:
        """Return what would stop a run that takes so many rows; None where nothing would.

        Where they were estimated, look as the run itself would before its first row.
        """
        if not self._limited:
            return None
        limit = Limit(self._connection, target, Tally())
        if rows is not None:
            return limit.over(rows)
        with self._looking():
            predicate = self._planner(target, now, progress).predicate()
        try:
            limit.check(plan, [predicate], self._budget.rows_left(0))
        except AllowanceExceeded as exceeded:
            return exceeded
        return None
