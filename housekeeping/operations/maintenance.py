"""Maintain a database: VACUUM, ANALYZE and REINDEX by need, beside everybody's work."""

from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import timedelta

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from housekeeping.engine.conducting import Begun, Conduct, stopped_event
from housekeeping.engine.connecting import connected_for
from housekeeping.engine.outcomes import ended_by
from housekeeping.engine.pacing import Budget
from housekeeping.engine.reporting import RunReport
from housekeeping.engine.run import Request, Surroundings
from housekeeping.engine.throttling import Hours, Throttle, Waited, throttled
from housekeeping.engine.upkeep.entries import Tally
from housekeeping.engine.upkeep.maintaining import MaintenanceLoop, entries_of
from housekeeping.engine.upkeep.needs import unneeded
from housekeeping.engine.upkeep.rebuild_phase import candidates
from housekeeping.engine.upkeep.steps import Steps
from housekeeping.engine.upkeep.surveying import Survey, Surveyed, survey, with_verdicts
from housekeeping.engine.upkeep.warnings import warnings_of
from housekeeping.policies.events import RunStarted
from housekeeping.policies.maintenance import MaintenancePolicy, When
from housekeeping.policies.pace import Pace
from housekeeping.policies.result import Phases, RunResult, StopReason
from housekeeping.stores.postgres.concurrent_builds import builds_refused
from housekeeping.stores.postgres.connection import guarded, place
from housekeeping.stores.postgres.cutoffs import database_now
from housekeeping.stores.postgres.ledger_schema import ensure_ledger
from housekeeping.stores.postgres.upkeep.server import refuse_standby
from housekeeping.stores.postgres.upkeep.stepping import Ending
from housekeeping.stores.postgres.upkeep.tables import states_of

# With ten thousand tables the statistics take seconds to read.
LOOKING = Pace(lock_timeout=timedelta(seconds=1), batch_target=timedelta(seconds=15))


def maintain(policy: MaintenancePolicy, request: Request, around: Surroundings) -> RunResult:
    """Do what the policy's tables need, or in a dry run say what that would be.

    Returns a result for every way a run can end. Raises PolicyRefused on a standby or without a
    ledger, StoreUnreachable when the database or Redis does not answer at the start, and
    RunInterrupted when `request.will_retry` and running it again would go on.
    """
    with connected_for(policy, request) as connection:
        return _Maintenance(policy, request, around, connection).run()


@dataclass
class _Maintenance:
    policy: MaintenancePolicy
    request: Request
    around: Surroundings
    connection: Connection
    _tally: Tally = field(default_factory=Tally, init=False)
    _waited: Waited = field(default_factory=Waited, init=False)
    _begun: float = field(init=False)

    def __post_init__(self) -> None:
        self._begun = self.around.clock.monotonic()

    def run(self) -> RunResult:
        refuse_standby(self.connection, self.policy)
        if self.request.dry_run:
            return self._rehearse()
        ensure_ledger(self.connection)
        conduct = Conduct(
            self.policy,
            self.request,
            self.around,
            f"{place(self.policy.database_url)}/maintenance",
            self.connection,
        )
        return conduct.run({}, self._attempt, lambda: self._result(StopReason.LOCKED, None))

    def _attempt(self, begun: Begun) -> RunResult:
        reason, error = ended_by(lambda: self._maintain(begun), self.policy, self.request)
        try:
            self._look_again()
        except SQLAlchemyError as gone:
            self._tally.warnings.append(f"what it is like afterwards could not be read: {gone}")
        if self._tally.failures and reason is StopReason.ERROR and error is None:
            error = "; ".join(self._tally.failures)
        return self._result(reason, error)

    def _maintain(self, begun: Begun) -> StopReason:
        hours = self._hours()
        if (closed := hours.closed()) is not None:
            self._tally.warnings.append(closed)
            return StopReason.THROTTLED

        def objection() -> StopReason | None:
            over = StopReason.TIME_BUDGET if hours.closed() else None
            return begun.objection() or over

        if (reason := objection()) is not None:
            return reason
        begun.record.settle_abandoned(self.connection)
        found = self._survey()
        planned = sum(len(table.needs) for table in found.tables)
        self._tell_started(found, planned, resumed=begun.resumed)
        with self._throttled(hours, begun) as throttle:
            steps = Steps(
                policy=self.policy,
                request=self.request,
                around=self.around,
                objection=objection,
                budget=Budget(self.policy.pace, None, self.around.clock),
                throttle=throttle,
                tally=self._tally,
                total=planned,
            )
            return MaintenanceLoop(
                self.connection, self.policy, found, steps, self._tally, LOOKING
            ).run()

    def _throttled(self, hours: Hours, begun: Begun) -> AbstractContextManager[Throttle]:
        # No table is named: autovacuum on one of them is each VACUUM's own matter.
        report = RunReport(self.policy, self.request, self.around.events)
        return throttled(
            self.policy, self.around, self.connection, (), hours,
            Budget(self.policy.pace, None, self.around.clock), begun.objection, report, self._waited,
        )  # fmt: skip

    def _hours(self) -> Hours:
        with guarded(self.connection, LOOKING, reading=True):
            now = database_now(self.connection)
        return Hours(self.policy.pace, now, self.around.clock)

    def _survey(self) -> Survey:
        with guarded(self.connection, LOOKING, reading=True, any_plan=True):
            found = survey(self.connection, self.policy, self.request.limit)
            self._tally.warnings += warnings_of(self.connection, found, self.policy)
        tally = self._tally
        tally.entries = entries_of(found)
        tally.counts["tables"] = len(found.tables)
        for name, hint in found.missing.items():
            tally.is_absent(name, hint, optional=self.policy.optional and bool(found.tables))
        if found.beyond_limit:
            tally.capped = True
            tally.warnings.append(f"{found.beyond_limit} more tables are in need, beyond the limit")
        return found

    def _tell_started(self, found: Survey, planned: int, *, resumed: bool) -> None:
        self.around.events.publish(
            RunStarted(
                operation=self.policy.operation,
                policy=self.policy.name,
                run_id=str(self.request.run_id),
                table=f"{len(found.tables)} tables",
                walk=f"{planned} steps needed",
                estimate=planned,
                dry_run=self.request.dry_run,
                resumed=resumed,
            )
        )

    def _look_again(self) -> None:
        """Read what the tables are like now that the work is over."""
        touched = {oid: entry for oid, entry in self._tally.entries.items() if entry.actions}
        if not touched:
            return
        with guarded(self.connection, LOOKING, reading=True, any_plan=True):
            now = [Surveyed(state) for state in states_of(self.connection, list(touched))]
            looked = replace(self.policy, reindex=When.ALWAYS)  # of every index, whatever its size
            for table in with_verdicts(self.connection, now, looked):
                touched[table.state.oid].after = table

    def _rehearse(self) -> RunResult:
        """Say what a run would do, and why; look as it would look."""
        found = self._survey()
        planned: Counter[str] = Counter()
        for table in found.tables:
            entry = self._tally.entries[table.state.oid]
            if table.error is not None:
                self._tally.fail(entry, table.error)
            for need in (table.vacuum, table.analyze):
                if need is not None:
                    entry.add(need, "planned")
                    planned[need.work.value] += 1
        refused = builds_refused(self.connection)
        for table, verdict in candidates(found.tables):
            assert verdict.need is not None
            how = "planned" if refused is None else Ending.SKIPPED.value
            self._tally.entries[table.state.oid].add(verdict.need, how, refused)
            planned["reindex"] += refused is None
        for table in found.tables:
            entry = self._tally.entries[table.state.oid]
            if self.policy.tables and not entry.actions and entry.error is None:
                entry.note = f"nothing needed: {unneeded(table.state, self.policy)}"
        result = self._result(StopReason.DRY_RUN, None)
        plan = {
            "would_do": planned.total(),
            "details": dict(planned),
            "counted_all": not self._tally.failures,
        }
        result = replace(
            result, dry_run=True, plan=plan, warnings=(*result.warnings, *self._tally.failures)
        )
        self.around.events.publish(stopped_event(result))
        return result

    def _result(self, reason: StopReason, error: str | None) -> RunResult:
        tally, failed = self._tally, reason is StopReason.ERROR
        warned = (error,) if error is not None and not failed else ()
        return RunResult(
            operation=self.policy.operation,
            policy=self.policy.name,
            run_id=str(self.request.run_id),
            stop_reason=reason,
            total_key=self.policy.total_key,
            total=tally.dead_rows_removed,
            details={key: tally.counts[key] for key in self.policy.detail_keys},
            batches=sum(tally.counts[key] for key in ("vacuumed", "analyzed", "reindexed")),
            seconds=self.around.clock.monotonic() - self._begun,
            phases=Phases(),
            warnings=(*dict.fromkeys(tally.warnings), *self._waited.warnings(), *warned),
            waits=self._waited.as_dict(),
            error=error if failed else None,
            tables=tally.tables(),
        )
