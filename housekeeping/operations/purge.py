"""Delete the rows a policy calls expired: preflight, lease, ledger, plan, windows, totals."""

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from housekeeping.engine.pacing import Budget, Rest
from housekeeping.engine.planning import Plan, Planner
from housekeeping.engine.purging import ConnectionLost, PurgeLoop, Tally, Windows
from housekeeping.engine.reporting import RunReport
from housekeeping.engine.run import LeaseHeld, Objection, Request, RunRecord, Surroundings, leased
from housekeeping.engine.walks import Walk, walk_of
from housekeeping.operations.rehearsal import CountingWindows, first_statement
from housekeeping.policies.errors import (
    LeaseLost,
    LeaseTaken,
    PolicyRefused,
    RunInterrupted,
    StoreUnreachable,
)
from housekeeping.policies.purge import PurgePolicy
from housekeeping.policies.result import Phases, RunResult, StopReason
from housekeeping.stores.postgres.conditions import Condition, condition_of, sentence
from housekeeping.stores.postgres.connection import connected, guarded, place
from housekeeping.stores.postgres.cutoffs import cutoffs_at, database_now
from housekeeping.stores.postgres.fencing import become_writer
from housekeeping.stores.postgres.ledger_schema import ensure_ledger
from housekeeping.stores.postgres.preflight import Target, resolve
from housekeeping.stores.postgres.run_ledger import RunIdentity
from housekeeping.stores.postgres.window_ledger import Summary, WindowLedger, prune_windows
from housekeeping.stores.postgres.windows import WindowStore

_log = logging.getLogger("housekeeping.purge")


def purge(policy: PurgePolicy, request: Request, around: Surroundings) -> RunResult:
    """Delete what `policy` calls expired, or in a dry run count it.

    Returns a result for every way a run can end. Raises PolicyRefused when the policy can't run on
    the database it points at, StoreUnreachable when the database or Redis does not answer at the
    start, and RunInterrupted when `request.will_retry` and running it again would go on.
    """
    application = f"hk:{policy.operation}:{policy.name}:{str(request.run_id)[:8]}"
    with connected(policy.database_url, application) as connection:
        return _Purge(policy, request, around, connection).run()


@dataclass
class _Progress:
    """How far a run has come; read when it ends, however it ends."""

    cutoffs: Mapping[str, datetime]
    plan: Plan | None = None
    ledger: WindowLedger | None = None
    tally: Tally | None = None


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

    def run(self) -> RunResult:
        if not self._request.dry_run:
            ensure_ledger(self._connection)
        with self._looking():
            now = database_now(self._connection)
            target = resolve(self._connection, self._policy)
        progress = _Progress(cutoffs_at(self._policy, now))
        if self._request.dry_run:
            return self._rehearse(target, now, progress)
        return self._under_lease(target, now, progress)

    def _looking(self) -> AbstractContextManager[None]:
        return guarded(self._connection, self._policy.pace, reading=True, any_plan=True)

    def _under_lease(self, target: Target, now: datetime, progress: _Progress) -> RunResult:
        where = f"{place(self._policy.database_url)}/{target.facts.label}"
        record = self._record(where)
        policy = self._policy
        try:
            with leased(
                where, policy.operation, policy.name, policy.pace, self._request, self._around
            ) as lease:
                control = self._around.control
                objection = Objection(policy.task, str(self._request.run_id), lease, control)
                return self._attempt(target, now, progress, record, objection)
        except LeaseHeld as held:
            result = self._result(StopReason.LOCKED, target, progress, None)
            if not held.by_our_twin:
                record.write_whole(result)
            self._report.stopped(result)
            return result

    def _record(self, where: str) -> RunRecord:
        identity = RunIdentity(
            id=self._request.run_id,
            operation=self._policy.operation,
            policy=self._policy.name,
            target=where,
            task_id=self._request.task_id,
            run_by=self._request.run_by,
        )
        return RunRecord(identity, self._around.ledger_url or self._policy.database_url)

    def _attempt(
        self,
        target: Target,
        now: datetime,
        progress: _Progress,
        record: RunRecord,
        objection: Objection,
    ) -> RunResult:
        started = record.start(progress.cutoffs)
        if started.ended and started.result is not None:
            return RunResult.from_dict(started.result)
        if set(started.cutoffs) == set(progress.cutoffs):
            progress.cutoffs = started.cutoffs
        resumed = started.attempts > 1
        reason, error = self._guard(
            lambda: self._delete(target, now, progress, record, objection, resumed=resumed)
        )
        result = self._finish(reason, error, target, progress)
        try:
            record.end(result)
        except StoreUnreachable as unreachable:
            missed = f"the ledger could not be reached to end the run: {unreachable.message}"
            result = replace(result, warnings=(*result.warnings, missed))
        self._report.stopped(result)
        return result

    def _delete(
        self,
        target: Target,
        now: datetime,
        progress: _Progress,
        record: RunRecord,
        objection: Objection,
        *,
        resumed: bool,
    ) -> StopReason:
        if (reason := objection()) is not None:
            return reason
        record.settle_abandoned(self._connection)
        pace = self._policy.pace
        writer = become_writer(
            self._connection, target.facts, self._request.run_id, pace, self._around.clock.sleep
        )
        progress.ledger = writer.ledger
        progress.tally = Tally(sizes=dict(writer.sizes))
        plan = self._plan(target, now, progress)
        walks = [walk_of(walk, target.facts, self._connection) for walk in plan.walks]
        if resumed:
            walks = self._skip_done(walks, progress)
        self._report.started(target.facts.label, plan, resumed=resumed)
        store = WindowStore(self._connection, target, writer.ledger)
        return self._loop(store, progress, objection).run(walks)

    def _plan(self, target: Target, now: datetime, progress: _Progress) -> Plan:
        with self._looking():
            progress.plan = Planner(
                self._connection, target, now, progress.cutoffs, self._request.walker
            ).plan()
        if progress.tally is not None:
            progress.tally.phases.probe += self._around.clock.monotonic() - self._begun
        return progress.plan

    def _skip_done(self, walks: list[Walk], progress: _Progress) -> list[Walk]:
        """Go on after the last window an earlier attempt committed."""
        assert progress.ledger is not None
        assert progress.tally is not None
        with self._looking():
            last = progress.ledger.last_window(self._connection)
            summary = progress.ledger.summary(self._connection)
        progress.tally.number = summary.last_number
        progress.tally.rows = summary.rows
        names = [walk.name for walk in walks]
        if last is None or last[0] not in names or last[1] is None:
            return walks
        remaining = walks[names.index(last[0]) :]
        remaining[0].skip_to(last[1])
        return remaining

    def _loop(
        self,
        windows: Windows,
        progress: _Progress,
        objection: Callable[[], StopReason | None],
    ) -> PurgeLoop:
        assert progress.tally is not None
        pace, clock = self._policy.pace, self._around.clock
        budget = Budget(pace, self._request.limit, clock)
        rest = Rest(pace.duty, clock, objection)
        return PurgeLoop(
            windows, pace, budget, rest, clock, objection, self._report, progress.tally
        )

    def _guard(self, work: Callable[[], StopReason]) -> tuple[StopReason, str | None]:
        """Do the work; turn what went wrong into a stop reason, or into RunInterrupted."""
        try:
            return work(), None
        except KeyboardInterrupt:
            return StopReason.STOPPED, None
        except PolicyRefused:
            raise
        except LeaseTaken as error:
            return StopReason.LOCK_LOST, error.message
        except Exception as error:
            interruption = _interruption(error)
            if interruption is None:
                _log.exception("%s: the run failed", self._policy.name)
                return StopReason.ERROR, _sentence(error)
            if self._request.will_retry:
                raise RunInterrupted(run_id=self._request.run_id, reason=interruption) from error
            lost = isinstance(error, LeaseLost)
            return StopReason.LOCK_LOST if lost else StopReason.ERROR, interruption

    def _finish(
        self, reason: StopReason, error: str | None, target: Target, progress: _Progress
    ) -> RunResult:
        """Sum the committed windows up, on a new connection where the old one is gone."""
        failed = error if reason is StopReason.ERROR else None
        warned = () if error is None or failed else (error,)
        try:
            return self._summed_up(self._connection, reason, failed, warned, target, progress)
        except DBAPIError:
            with connected(self._policy.database_url, "hk:ledger") as connection:
                return self._summed_up(connection, reason, failed, warned, target, progress)

    def _summed_up(
        self,
        connection: Connection,
        reason: StopReason,
        error: str | None,
        warned: tuple[str, ...],
        target: Target,
        progress: _Progress,
    ) -> RunResult:
        summary, oldest = None, None
        if progress.ledger is not None and progress.tally is not None:
            with guarded(connection, self._policy.pace, any_plan=True):
                summary = progress.ledger.summary(connection)
                progress.ledger.remember_sizes(connection, progress.tally.sizes)
                prune_windows(connection)
            if reason is not StopReason.EXHAUSTED:
                oldest = self._oldest(connection, progress)
        result = self._result(reason, target, progress, summary)
        return replace(
            result,
            error=error,
            oldest_expired_age_seconds=oldest,
            warnings=(*result.warnings, *warned),
        )

    def _oldest(self, connection: Connection, progress: _Progress) -> float | None:
        """Return the age of the oldest row still to go, where an index tells it at once."""
        ages = []
        for walk in progress.plan.served if progress.plan else ():
            try:
                with guarded(connection, self._policy.pace, reading=True):
                    now = database_now(connection)
                    oldest = walk.probe.oldest(connection, walk.predicate)
            except DBAPIError:
                return None  # a long way to the first such row; the run has more to do anyway
            if oldest is not None and (age := walk.age_type.seconds_before(oldest, now)):
                ages.append(age)
        return max(ages, default=None)

    def _rehearse(self, target: Target, now: datetime, progress: _Progress) -> RunResult:
        """Walk the same windows with the same predicate, and count instead of deleting."""
        progress.tally = Tally()
        plan = self._plan(target, now, progress)
        self._report.started(target.facts.label, plan, resumed=False)
        store = WindowStore(self._connection, target, None)
        walks = [walk_of(walk, target.facts, self._connection) for walk in plan.walks]
        loop = self._loop(CountingWindows(store), progress, lambda: None)
        reason, error = self._guard(lambda: loop.run(walks))
        found = progress.tally
        shown = {
            **plan.as_dict(),
            "would_delete": found.rows,
            "details": self._details(target, found.counts),
            "counted_all": reason is StopReason.EXHAUSTED,
            "statement": first_statement(self._connection, target, plan),
        }
        stop = StopReason.ERROR if reason is StopReason.ERROR else StopReason.DRY_RUN
        result = self._result(stop, target, progress, None)
        result = replace(result, plan=shown, dry_run=True, error=error)
        self._report.stopped(result)
        return result

    def _result(
        self, reason: StopReason, target: Target, progress: _Progress, summary: Summary | None
    ) -> RunResult:
        phases = progress.tally.phases if progress.tally else Phases()
        return RunResult(
            operation=self._policy.operation,
            policy=self._policy.name,
            run_id=str(self._request.run_id),
            stop_reason=reason,
            total=summary.rows if summary else 0,
            details=self._details(target, summary.counts if summary else {}),
            cutoffs=progress.cutoffs,
            batches=summary.windows if summary else 0,
            seconds=self._around.clock.monotonic() - self._begun,
            phases=phases,
            left_behind=summary.left_behind if summary else 0,
            warnings=(*target.warnings, *_left_warning(summary)),
        )

    def _details(self, target: Target, counts: Mapping[str, int]) -> dict[str, int]:
        keys = [rule.reason for rule in self._policy.rules]
        keys += [key for _, key in self._policy.child_names]
        keys += [child.key for child in target.children]
        return {key: int(counts.get(key, 0)) for key in dict.fromkeys(keys)}


def _interruption(error: Exception) -> str | None:
    """Say what interrupted a run that could go on from its last window; None for other errors."""
    if isinstance(error, LeaseLost | StoreUnreachable):
        return error.message
    if isinstance(error, ConnectionLost):
        return f"the database connection was lost: {error}"
    if isinstance(error, DBAPIError) and condition_of(error) is Condition.CONNECTION_LOST:
        return f"the database connection was lost: {sentence(error)}"
    return None


def _sentence(error: Exception) -> str:
    if isinstance(error, DBAPIError):
        return sentence(error)
    return f"{type(error).__name__}: {error}".rstrip(": ")


def _left_warning(summary: Summary | None) -> tuple[str, ...]:
    if summary is None or not summary.left_behind:
        return ()
    return (
        f"{summary.left_behind} expired rows stayed: another session holds them, or a constraint "
        "or trigger refuses; the ledger's windows say which",
    )
