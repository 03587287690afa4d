"""What maintenance may do to a database: which tables, which work, from which need on."""

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from housekeeping.policies.policy import Policy
from housekeeping.policies.purge import TableName

MEGABYTE = 1024 * 1024


class When(StrEnum):
    """When a kind of work is done."""

    BY_NEED = "by need"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, kw_only=True)
class VacuumLimits:
    """From when on a table is vacuumed, and how hard the server works for it.

    Dead rows must be above both `dead_rows` and `dead_share` of the table's rows. `freeze_share`:
    or the oldest transaction id in it is past this share of autovacuum_freeze_max_age, after which
    autovacuum would do it at an hour of its own; from `freeze_warn_share` on it is told.
    `cost_limit`: vacuum_cost_limit, with a delay of 2 ms each time it is used up; a VACUUM that is
    asked for goes unthrottled otherwise.
    """

    dead_rows: int = 50_000
    dead_share: float = 0.02
    freeze_share: float = 0.7
    freeze_warn_share: float = 0.4
    cost_limit: int = 500


@dataclass(frozen=True, kw_only=True)
class AnalyzeLimits:
    """From when on a table is analyzed by itself; after a VACUUM it always is.

    Rows changed since its last ANALYZE must be above both.
    """

    changed_rows: int = 10_000
    changed_share: float = 0.05


@dataclass(frozen=True, kw_only=True)
class ReindexLimits:
    """Which indexes are rebuilt, and what has to be free for it.

    `bloat_share`: what a fresh index would save, of an index of at least `min_size` bytes.
    `max_indexes`: a run rebuilds at most so many, worst first. `cooldown`: not again before.
    `headroom`: bytes free on the disk for each byte of the index: the new one, its sort, its WAL.
    `disk_size`: of the server's disk in bytes, where the server is on another machine: what its
    databases take is then known, and so is what is left.
    `give_up_after`: an index whose last so many rebuilds all failed is left to an operator.
    """

    bloat_share: float = 0.3
    min_size: int = 256 * MEGABYTE
    max_indexes: int = 4
    cooldown: timedelta = timedelta(days=7)
    headroom: float = 2.2
    disk_size: int | None = None
    give_up_after: int = 3


@dataclass(frozen=True, kw_only=True)
class MaintenancePolicy(Policy):
    """One database's maintenance. Without tables: all users' tables we may maintain."""

    tables: tuple[TableName, ...] = ()
    optional: bool = False
    """tables that are not there belong to another generation of the schema: told, no failure"""
    vacuum: When = When.BY_NEED
    analyze: When = When.BY_NEED
    reindex: When = When.BY_NEED
    vacuum_limits: VacuumLimits = field(default_factory=VacuumLimits)
    analyze_limits: AnalyzeLimits = field(default_factory=AnalyzeLimits)
    reindex_limits: ReindexLimits = field(default_factory=ReindexLimits)
    patience: timedelta = timedelta(seconds=5)
    """how long somebody may wait for a lock of ours before we give it up"""
    old_transaction: timedelta = timedelta(minutes=5)
    """a transaction older than this is named; no index is rebuilt beside it"""

    @property
    def works_on(self) -> str:
        return ", ".join(str(table) for table in self.tables) or "all tables"

    @property
    def detail_keys(self) -> tuple[str, ...]:
        return (
            "tables",
            "vacuumed",
            "analyzed",
            "reindexed",
            "skipped",
            "failed",
            "leftovers_removed",
        )

    @property
    def total_key(self) -> str:
        return "total_cleaned"
