"""After a purge: VACUUM and ANALYZE of the tables that lost many rows, before anybody reads them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from housekeeping.engine.outcomes import told
from housekeeping.engine.pacing import Clock
from housekeeping.operations.partitions.steps import WALK
from housekeeping.policies.errors import StoreUnreachable
from housekeeping.policies.pace import Pace
from housekeeping.policies.purge import PurgePolicy
from housekeeping.policies.result import RunResult, StopReason
from housekeeping.stores.postgres.connection import connected, guarded
from housekeeping.stores.postgres.preflight import Target
from housekeeping.stores.postgres.upkeep.stepping import Ending, Stepping, StepStopped
from housekeeping.stores.postgres.upkeep.tables import (
    TableState,
    grant_needed,
    states_of,
    with_partitions,
)
from housekeeping.stores.postgres.upkeep.vacuuming import analyze, vacuum
from housekeeping.stores.postgres.window_ledger import rows_lost

_LOOKING = Pace(lock_timeout=timedelta(seconds=1))
_PATIENCE = timedelta(seconds=5)
# A run that used its time budget up still has five minutes until Celery's limit ends it.
_BEYOND_BUDGET_SECONDS = 180.0
_COMMITTED = (StopReason.EXHAUSTED, StopReason.TIME_BUDGET, StopReason.ROW_BUDGET)


def vacuum_after(stepping: Stepping, tables: Sequence[int], enough: int) -> tuple[str, ...]:
    """Vacuum and analyze tables, by their oids, that have just lost many rows.

    Of a partitioned table those partitions that have `enough` dead rows by now.
    Returns a sentence for each that could not be done, and raises nothing: the rows are gone
    whatever becomes of this, and autovacuum comes some day.
    """
    if not tables:
        return ()
    try:
        with connected(stepping.url, stepping.application) as connection:
            with guarded(connection, _LOOKING, reading=True, any_plan=True):
                states = _parts(connection, tables, enough)
            done = [_looked_after(stepping, connection, table) for table in states]
    except StepStopped as stopped:
        return (f"tables are left to autovacuum: {stopped.reason}",)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - see above
        reason = told(error) if isinstance(error, Exception) else "interrupted"
        return (f"tables are left to autovacuum: {reason}",)
    return tuple(sentence for sentences in done for sentence in sentences)


def _parts(connection: Connection, tables: Sequence[int], enough: int) -> list[TableState]:
    found: list[TableState] = []
    for table in states_of(connection, tables):
        if table.kind != "p":
            found.append(table)
            continue
        parts = states_of(connection, with_partitions(connection, table.oid))
        found += [part for part in parts if part.kind != "p" and part.dead_rows >= enough]
    return found


def _looked_after(stepping: Stepping, connection: Connection, table: TableState) -> tuple[str, ...]:
    if not table.may_maintain:
        with guarded(connection, _LOOKING, reading=True, any_plan=True):
            return (f"{table.label} is left to autovacuum: {grant_needed(connection, table)}",)
    vacuumed = vacuum(stepping, connection, table)
    if vacuumed.ending is not Ending.DONE:
        return (f"{table.label} is left to autovacuum: {vacuumed.told}",)
    analyzed = analyze(stepping, connection, table)
    if analyzed.ending is not Ending.DONE:
        return (f"{table.label} was vacuumed and not analyzed: {analyzed.told}",)
    return ()


@dataclass(frozen=True)
class Aftercare:
    """What a purge does for its tables once its rows are gone, still under its lease."""

    policy: PurgePolicy
    target: Target
    application: str
    objection: Callable[[], StopReason | None]
    clock: Clock
    begun: float
    """when the run began, by the clock's monotonic time"""

    def of(self, result: RunResult) -> RunResult:
        """Vacuum the tables that lost enough rows; return the result with what could not be done."""
        enough = self.policy.vacuum_after_rows
        if enough is None or result.stop_reason not in _COMMITTED:
            return result
        try:
            lost = self._lost(result)
        except (SQLAlchemyError, StoreUnreachable) as error:
            why = f"tables are left to autovacuum: {told(error)}"
            return replace(result, warnings=(*result.warnings, why))
        for child in self.target.children:
            oid = child.foreign_key.child_oid
            lost[oid] = lost.get(oid, 0) + result.details.get(child.key, 0)
        tables = [oid for oid, rows in lost.items() if rows >= enough]
        warnings = vacuum_after(self._stepping(), tables, enough)
        seconds = self.clock.monotonic() - self.begun
        return replace(result, warnings=(*result.warnings, *warnings), seconds=seconds)

    def _lost(self, result: RunResult) -> dict[int, int]:
        """Return rows by table. VACUUM of a partitioned one would go through all its partitions."""
        if not self.target.in_parts:
            return {self.target.facts.oid: result.total}
        with (
            connected(self.policy.database_url, self.application) as connection,
            guarded(connection, _LOOKING, reading=True, any_plan=True),
        ):
            return rows_lost(connection, result.run_id, WALK)

    def _stepping(self) -> Stepping:
        return Stepping(
            url=self.policy.database_url,
            application=self.application,
            patience=_PATIENCE,
            objection=self._objection,
            lock_timeout=self.policy.pace.lock_timeout,
        )

    def _objection(self) -> StopReason | None:
        budget = self.policy.pace.time_budget.total_seconds() + _BEYOND_BUDGET_SECONDS
        over = self.clock.monotonic() - self.begun > budget
        return StopReason.TIME_BUDGET if over else self.objection()
