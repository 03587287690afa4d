"""What a table needs, and why: each need with the figure and the threshold it is above."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from housekeeping.policies.maintenance import MaintenancePolicy, When
from housekeeping.stores.postgres.upkeep.indexes import IndexState
from housekeeping.stores.postgres.upkeep.rebuilds import Past
from housekeeping.stores.postgres.upkeep.tables import TableState

# Autovacuum never gathers a partitioned table's own statistics.
_PARENT_STATISTICS_DAYS = 7.0
_TRY_AGAIN_AFTER = timedelta(days=30)
_MEGABYTE = 1024 * 1024


class Work(StrEnum):
    VACUUM = "vacuum"
    ANALYZE = "analyze"
    REINDEX = "reindex"


@dataclass(frozen=True)
class Need:
    """One thing to do, and why."""

    work: Work
    reason: str
    freeze: bool = False


def vacuum_need(table: TableState, policy: MaintenancePolicy) -> Need | None:
    """Say why a table is to be vacuumed; None when it is not."""
    if policy.vacuum is When.NEVER or table.kind == "p":
        return None
    limits = policy.vacuum_limits
    if table.frozen_share >= limits.freeze_share:
        share = f"{table.frozen_share:.0%} of autovacuum_freeze_max_age"
        reason = f"age {share} >= {limits.freeze_share:.0%}"
        return Need(Work.VACUUM, reason, freeze=True)
    threshold = dead_threshold(table, policy)
    if table.dead_rows > threshold:
        return Need(Work.VACUUM, f"dead rows {table.dead_rows:,} > {threshold:,}")
    return Need(Work.VACUUM, "always") if policy.vacuum is When.ALWAYS else None


def dead_threshold(table: TableState, policy: MaintenancePolicy) -> int:
    """Return the dead rows a table may have."""
    limits = policy.vacuum_limits
    return max(limits.dead_rows, int(limits.dead_share * table.rows))


def analyze_need(table: TableState, policy: MaintenancePolicy, *, vacuumed: bool) -> Need | None:
    """Say why a table is to be analyzed; None when it is not."""
    if policy.analyze is When.NEVER:
        return None
    if vacuumed:
        return Need(Work.ANALYZE, "after VACUUM")
    limits = policy.analyze_limits
    threshold = max(limits.changed_rows, int(limits.changed_share * table.rows))
    if table.analyzed_days_ago is None and (table.rows or table.kind == "p"):
        return Need(Work.ANALYZE, "never analyzed")
    if table.changed_rows > threshold:
        return Need(Work.ANALYZE, f"changed rows {table.changed_rows:,} > {threshold:,}")
    if table.kind == "p" and (days := table.analyzed_days_ago or 0) > _PARENT_STATISTICS_DAYS:
        reason = (
            f"statistics over all partitions {days:.0f} d old > {_PARENT_STATISTICS_DAYS:.0f} d"
        )
        return Need(Work.ANALYZE, reason)
    return Need(Work.ANALYZE, "always") if policy.analyze is When.ALWAYS else None


def unneeded(table: TableState, policy: MaintenancePolicy) -> str:
    """Say why nothing is to be done on a table, thresholds and all."""
    told = []
    if policy.vacuum is not When.NEVER and table.kind != "p":
        told.append(f"dead rows {table.dead_rows:,} <= {dead_threshold(table, policy):,}")
        limit = policy.vacuum_limits.freeze_share
        told.append(f"age {table.frozen_share:.0%} of autovacuum_freeze_max_age < {limit:.0%}")
    if policy.analyze is not When.NEVER:
        limits = policy.analyze_limits
        threshold = max(limits.changed_rows, int(limits.changed_share * table.rows))
        told.append(f"changed rows {table.changed_rows:,} <= {threshold:,}")
    return "; ".join(told)


@dataclass(frozen=True)
class Verdict:
    """Whether an index is to be rebuilt."""

    index: IndexState
    bloat: float | None
    need: Need | None = None
    hindrance: str | None = None
    """it should be, and can't: for an operator to see"""


def reindex_verdict(
    index: IndexState, bloat: float | None, past: Mapping[str, Past], policy: MaintenancePolicy
) -> Verdict:
    """Say whether an index is to be rebuilt, and what stands against it."""
    if policy.reindex is When.NEVER or not index.valid or index.exclusion:
        return Verdict(index, bloat)
    need = _reindex_need(index, bloat, policy)
    if need is None or policy.reindex is When.ALWAYS:
        return Verdict(index, bloat, need)
    limits, before = policy.reindex_limits, past.get(index.label)
    if before is None:
        return Verdict(index, bloat, need)
    given_up = before.failures >= limits.give_up_after
    if given_up and before.failed_ago is not None and before.failed_ago < _TRY_AGAIN_AFTER:
        told = (
            f"{index.label} is bloated ({need.reason}); its last {before.failures} rebuilds failed"
        )
        remedy = f"REINDEX INDEX CONCURRENTLY {index.quoted} by hand when nothing stands in its way"
        return Verdict(index, bloat, None, f"{told}: run {remedy}")
    if before.done_ago is not None and before.done_ago < limits.cooldown:
        return Verdict(index, bloat)
    return Verdict(index, bloat, need)


def _reindex_need(index: IndexState, bloat: float | None, policy: MaintenancePolicy) -> Need | None:
    limits = policy.reindex_limits
    if bloat is not None and bloat >= limits.bloat_share and index.bytes >= limits.min_size:
        reason = (
            f"{index.name}: bloat {bloat:.0%} >= {limits.bloat_share:.0%}"
            f" of {index.bytes / _MEGABYTE:,.0f} MB >= {limits.min_size / _MEGABYTE:,.0f} MB"
        )
        return Need(Work.REINDEX, reason)
    if policy.reindex is When.ALWAYS:
        return Need(Work.REINDEX, f"{index.name}: always")
    return None
