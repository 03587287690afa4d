"""What maintenance finds before it begins: the tables, what each needs, what is to be told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from housekeeping.engine.upkeep.needs import (
    Need,
    Verdict,
    analyze_need,
    reindex_verdict,
    vacuum_need,
)
from housekeeping.policies.maintenance import MaintenancePolicy, When
from housekeeping.policies.purge import TableName
from housekeeping.stores.postgres.catalog import find_table, table_names
from housekeeping.stores.postgres.concurrent_builds import builds_refused
from housekeeping.stores.postgres.names import did_you_mean
from housekeeping.stores.postgres.upkeep.indexes import IndexState, indexes_of
from housekeeping.stores.postgres.upkeep.rebuilds import Past, past_rebuilds
from housekeeping.stores.postgres.upkeep.tables import (
    TableState,
    all_states,
    grant_needed,
    states_of,
    with_partitions,
)


@dataclass(frozen=True)
class Surveyed:
    """One table: its state, and what it needs."""

    state: TableState
    vacuum: Need | None = None
    analyze: Need | None = None
    verdicts: tuple[Verdict, ...] = ()
    error: str | None = None
    """why nothing can be done to it"""

    @property
    def needs(self) -> tuple[Need, ...]:
        planned = [need for need in (self.vacuum, self.analyze) if need is not None]
        return (*planned, *(verdict.need for verdict in self.verdicts if verdict.need is not None))

    @property
    def bloat_bytes(self) -> int | None:
        return bloat_bytes([verdict.index for verdict in self.verdicts])


@dataclass(frozen=True)
class Survey:
    """All tables of a policy."""

    tables: tuple[Surveyed, ...]
    missing: Mapping[str, str]
    """tables named and not there: what to do about it"""
    beyond_limit: int = 0
    """tables with needs that `limit` leaves for another run"""
    not_ours: int = 0
    """tables of the database that this role may not maintain, where none were named"""


def survey(connection: Connection, policy: MaintenancePolicy, limit: int | None = None) -> Survey:
    """Look at every table of a policy; inside a reading transaction."""
    missing: dict[str, str] = {}
    not_ours = 0
    if policy.tables:
        oids = _oids_of(connection, policy.tables, missing)
        states = states_of(connection, oids)
    else:
        everything = all_states(connection)
        states = tuple(state for state in everything if state.may_maintain)
        not_ours = len(everything) - len(states)
    found = [_surveyed(connection, state, policy) for state in states]
    found = with_verdicts(connection, found, policy)
    found.sort(key=_urgency)
    needy = [table for table in found if table.needs]
    beyond = needy[limit:] if limit is not None else []
    kept = tuple(table for table in found if table not in beyond)
    return Survey(kept, missing, len(beyond), not_ours)


def _urgency(table: Surveyed) -> tuple[bool, int]:
    """Near wraparound first, then by dead rows."""
    return (not (table.vacuum is not None and table.vacuum.freeze), -table.state.dead_rows)


def _oids_of(
    connection: Connection, names: Sequence[TableName], missing: dict[str, str]
) -> list[int]:
    oids: list[int] = []
    for name in names:
        oid = find_table(connection, name)
        if oid is None:
            missing[str(name)] = did_you_mean(name.name, table_names(connection)).strip()
        else:
            oids += with_partitions(connection, oid)
    return list(dict.fromkeys(oids))


def _surveyed(connection: Connection, state: TableState, policy: MaintenancePolicy) -> Surveyed:
    if state.kind not in ("r", "m", "p"):
        return Surveyed(
            state, error="is no table: a view or a foreign table has nothing to maintain"
        )
    if not state.may_maintain:
        return Surveyed(state, error=grant_needed(connection, state))
    vacuum = vacuum_need(state, policy)
    return Surveyed(state, vacuum, analyze_need(state, policy, vacuumed=vacuum is not None))


def with_verdicts(
    connection: Connection, tables: Sequence[Surveyed], policy: MaintenancePolicy
) -> list[Surveyed]:
    """Return the tables with a verdict on each of their indexes, by the statistics of this moment."""
    looked_at = [table.state.oid for table in tables if _worth_a_look(table, policy)]
    if not looked_at:
        return list(tables)
    past, refused = past_rebuilds(connection), builds_refused(connection)
    by_table: dict[int, list[IndexState]] = {}
    for index in indexes_of(connection, looked_at):
        by_table.setdefault(index.table_oid, []).append(index)
    return [
        replace(
            table,
            verdicts=tuple(
                _verdict(table.state, index, past, policy, refused)
                for index in by_table.get(table.state.oid, ())
            ),
        )
        for table in tables
    ]


def _worth_a_look(table: Surveyed, policy: MaintenancePolicy) -> bool:
    """With thousands of tables only those whose indexes may matter are looked up."""
    if table.error is not None or table.state.kind == "p":
        return False
    if table.vacuum or table.analyze or policy.tables or policy.reindex is When.ALWAYS:
        return True
    return policy.reindex is not When.NEVER and table.state.bytes >= policy.reindex_limits.min_size


def _verdict(
    table: TableState,
    index: IndexState,
    past: Mapping[str, Past],
    policy: MaintenancePolicy,
    refused: str | None,
) -> Verdict:
    """`refused`: why the server builds no index."""
    verdict = reindex_verdict(index, index.bloat_share(), past, policy)
    if verdict.hindrance and refused is not None:  # its remedy is a rebuild by hand
        return replace(verdict, hindrance=f"{index.label} is bloated; {refused}")
    if verdict.need is None or table.may_reindex:
        return verdict
    told = f"{index.label} is bloated and only the owner of {table.label}, {table.owner}, may rebuild it"
    return replace(verdict, need=None, hindrance=told)


def bloat_bytes(indexes: Sequence[IndexState]) -> int | None:
    """Return what fresh copies of these indexes would save, as far as the statistics tell."""
    shares = [(index.bytes, index.bloat_share()) for index in indexes]
    known = [int(size * share) for size, share in shares if share is not None]
    return sum(known) if known else None
