"""`[milvaion.maintenance]` and `[maintenance.NAME]`: VACUUM, ANALYZE and REINDEX by need."""

from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer

from housekeeping.policies.health import HealthLimits
from housekeeping.policies.maintenance import (
    MEGABYTE,
    AnalyzeLimits,
    MaintenancePolicy,
    ReindexLimits,
    VacuumLimits,
    When,
)
from housekeeping.policies.pace import Pace
from housekeeping.policies.purge import TableName
from settings.addresses import DatabaseUrl
from settings.durations import Duration, between
from settings.health_settings import HealthSettings
from settings.policy_settings import Switched
from settings.sizes import Size
from settings.table_name import read_table
from settings.values import Name, listed, share, whole

OPERATION = "database.maintain"
# What Milvaion's own job is shipped with; older generations lack two of them.
MILVAION_TABLES = (
    "JobOccurrences",
    "JobOccurrenceLogs",
    "ScheduledJobs",
    "FailedOccurrences",
    "WorkflowRuns",
)
_MS = timedelta(milliseconds=1)
_SECOND = timedelta(seconds=1)
_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)
_WHEN = {
    **dict.fromkeys(("by need", "true", "on", "yes"), When.BY_NEED),
    **dict.fromkeys(("never", "false", "off", "no"), When.NEVER),
    "always": When.ALWAYS,
}


def _when(value: object) -> When:
    word = str(value).strip().lower().replace("_", " ") if isinstance(value, str | bool) else ""
    if (known := _WHEN.get(word)) is None:
        raise ValueError('give "by need" (the same as true), "always" or "never" (as false)')
    return known


def _tables(value: object) -> tuple[TableName, ...]:
    tables = listed(value)
    if not isinstance(tables, list | tuple):
        expected = 'give a list of tables such as ["events", ["app", "jobs"]]'
        raise ValueError(expected)  # noqa: TRY004 - pydantic tells of a ValueError
    return tuple(read_table(table) for table in tables)


Wanted = Annotated[When, BeforeValidator(_when)]
Tables = Annotated[
    tuple[TableName, ...],
    BeforeValidator(_tables),
    PlainSerializer(lambda tables: [str(table) for table in tables], return_type=list[str]),
]
Fraction = Annotated[float, share(0.0001, 1.0, "0.02 is 2 %")]


class MaintenanceSettings(Switched):
    """What one database's maintenance may do. Defaults suit a production database at night.

    `tables`: names as they stand in the catalog, or lists of schema and name. Left out, all tables
    of the database that this role may maintain.
    `vacuum`, `analyze`, `reindex`: "by need", "always" or "never".
    `dead_rows`, `dead_share`: a table is vacuumed when its dead rows are above both.
    `freeze_share`: or when its age is past this share of autovacuum_freeze_max_age.
    `vacuum_cost_limit`: how hard the server works between two naps of 2 ms; 1 to 10,000.
    `changed_rows`, `changed_share`: a table is analyzed when rows changed since are above both.
    `bloat_share`, `min_index_size`: an index is rebuilt when a fresh one would save this share.
    `max_indexes`: at most so many a run. `cooldown`: none again before; 0s to 365d.
    `headroom`: bytes that must be free for each byte of an index.
    `disk_size`: of the server's disk; needed where the server is on another machine.
    `patience`: how long anybody may wait for a lock of ours, 100ms to 60s.
    `old_transaction`: beside a transaction older than this no index is rebuilt.
    `time_budget`: the run ends then, within a step too, 1s to 24h.
    `lock_timeout`: how long a step waits for a lock before it is skipped, 1ms to 60s.
    `health`: from where on the database is too busy for the next step.
    """

    tables: Tables = ()
    vacuum: Wanted = When.BY_NEED
    analyze: Wanted = When.BY_NEED
    reindex: Wanted = When.BY_NEED
    dead_rows: Annotated[int, whole(0)] = 50_000
    dead_share: Fraction = 0.02
    freeze_share: Fraction = 0.7
    vacuum_cost_limit: Annotated[int, whole(1, 10_000)] = 500
    changed_rows: Annotated[int, whole(0)] = 10_000
    changed_share: Fraction = 0.05
    bloat_share: Fraction = 0.3
    min_index_size: Size = 256 * MEGABYTE
    max_indexes: Annotated[int, whole(1, 1_000)] = 4
    cooldown: Annotated[Duration, between(timedelta(0), 365 * _DAY)] = 7 * _DAY
    headroom: Annotated[float, share(1.0, 100.0, "2.2 is 2.2 times its size")] = 2.2
    disk_size: Size | None = None
    patience: Annotated[Duration, between(100 * _MS, 60 * _SECOND)] = 5 * _SECOND
    old_transaction: Annotated[Duration, between(_SECOND, _DAY)] = timedelta(minutes=5)
    time_budget: Annotated[Duration, between(_SECOND, _DAY)] = 2 * _HOUR
    lock_timeout: Annotated[Duration, between(_MS, 60 * _SECOND)] = 200 * _MS
    health: HealthSettings | None = None

    def policy(
        self,
        name: str,
        database_url: str,
        lease_ttl: timedelta,
        tables: tuple[TableName, ...] | None = None,
        *,
        optional: bool = False,
    ) -> MaintenancePolicy:
        """Return what the engine runs, on `tables` where they are given."""
        return MaintenancePolicy(
            operation=OPERATION,
            name=name,
            database_url=database_url,
            tables=self.tables if tables is None else tables,
            optional=optional,
            vacuum=self.vacuum,
            analyze=self.analyze,
            reindex=self.reindex,
            vacuum_limits=VacuumLimits(
                dead_rows=self.dead_rows,
                dead_share=self.dead_share,
                freeze_share=self.freeze_share,
                freeze_warn_share=min(VacuumLimits.freeze_warn_share, self.freeze_share),
                cost_limit=self.vacuum_cost_limit,
            ),
            analyze_limits=AnalyzeLimits(
                changed_rows=self.changed_rows, changed_share=self.changed_share
            ),
            reindex_limits=ReindexLimits(
                bloat_share=self.bloat_share,
                min_size=self.min_index_size,
                max_indexes=self.max_indexes,
                cooldown=self.cooldown,
                headroom=self.headroom,
                disk_size=self.disk_size,
            ),
            patience=self.patience,
            old_transaction=self.old_transaction,
            pace=Pace(
                only_between=self.hours,
                health=self.health.limits() if self.health else HealthLimits(),
                time_budget=self.time_budget,
                lock_timeout=self.lock_timeout,
                lease_ttl=lease_ttl,
            ),
        )


class MilvaionMaintenance(MaintenanceSettings):
    """`[milvaion.maintenance]`: the tables Milvaion's own job maintains, unless others are given."""

    tables: Tables = tuple(TableName(name) for name in MILVAION_TABLES)

    def policy_in(
        self, schema: str | None, name: str, database_url: str, lease_ttl: timedelta
    ) -> MaintenancePolicy:
        """Return what the engine runs, with Milvaion's tables in that schema."""
        tables = tuple(TableName(table.name, table.schema or schema) for table in self.tables)
        # A table another generation has and this one lacks is no fault.
        known = {table.name for table in tables} <= set(MILVAION_TABLES)
        return self.policy(name, database_url, lease_ttl, tables, optional=known)


class DatabaseMaintenance(MaintenanceSettings):
    """`[maintenance.NAME]`: any database.

    `database_url`: left out, the one for all systems. `schema`: of tables given without one.
    """

    database_url: DatabaseUrl | None = None
    schema_name: Name | None = Field(default=None, alias="schema")

    def policy_called(
        self, name: str, database_url: str, lease_ttl: timedelta
    ) -> MaintenancePolicy:
        """Return what the engine runs; `name` is the NAME of `[maintenance.NAME]`."""
        schema = self.schema_name
        tables = tuple(TableName(table.name, table.schema or schema) for table in self.tables)
        return self.policy(name, database_url, lease_ttl, tables)
