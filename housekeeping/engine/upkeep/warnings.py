"""What a maintenance run tells beside its work: what autovacuum misses, who is in the way."""

from collections.abc import Iterator, Sequence

from sqlalchemy import Connection

from housekeeping.engine.upkeep.surveying import Survey
from housekeeping.policies.maintenance import MaintenancePolicy, When
from housekeeping.stores.postgres.concurrent_builds import builds_refused
from housekeeping.stores.postgres.ledger_schema import SCHEMA
from housekeeping.stores.postgres.names import quoted
from housekeeping.stores.postgres.upkeep.horizon import (
    hidden_sessions,
    holders,
    old_ones,
    oldest_database,
)
from housekeeping.stores.postgres.upkeep.leftovers import invalid_indexes, left_by
from housekeeping.stores.postgres.upkeep.rebuilds import open_intents
from housekeeping.stores.postgres.upkeep.tables import TableState

# The server refuses to write at 2.1 billion, and warns from 40 million before.
_WRAPAROUND_NEAR = 1_000_000_000
_BEHIND = 2  # times the dead rows autovacuum starts at
_BEHIND_FROM = 1_000
_AN_HOUR = 1 / 24
_MOST_HOLDERS = 3
_MOST_TABLES = 5


def warnings_of(
    connection: Connection, survey: Survey, policy: MaintenancePolicy
) -> tuple[str, ...]:
    """Return what an operator should know; inside a reading transaction."""
    states = [table.state for table in survey.tables]
    return (
        *_nothing_ours(survey),
        *_ages(connection, states, policy),
        *_autovacuum_behind(states),
        *_horizon(connection, policy),
        *_invalid(connection, states),
        *_builds(connection, policy),
        *(v.hindrance for table in survey.tables for v in table.verdicts if v.hindrance),
    )


def _nothing_ours(survey: Survey) -> Iterator[str]:
    """Tell of a role that may maintain the ledger it made, and nothing else."""
    if survey.not_ours and all(table.state.schema == SCHEMA for table in survey.tables):
        yield (
            f"this role may maintain none of the database's {survey.not_ours} tables: work as their "
            "owner, or, from PostgreSQL 17 on, GRANT MAINTAIN on them"
        )


def _builds(connection: Connection, policy: MaintenancePolicy) -> Iterator[str]:
    """Tell of a server whose concurrent builds can't be trusted."""
    refused = builds_refused(connection)
    if refused is not None and policy.reindex is not When.NEVER:
        yield f"no index is rebuilt: {refused}"


def _ages(
    connection: Connection, states: Sequence[TableState], policy: MaintenancePolicy
) -> Iterator[str]:
    database, age = oldest_database(connection)
    if age >= _WRAPAROUND_NEAR:
        yield (
            f"database {database} is {age:,} transactions old; the server stops writing at "
            "2,146,483,648. Run VACUUM (FREEZE) on its oldest tables now"
        )
    limits = policy.vacuum_limits
    old = sorted(
        (state for state in states if state.frozen_share >= limits.freeze_warn_share),
        key=lambda state: -state.frozen_share,
    )
    if old:
        yield (
            f"{len(old)} {'table is' if len(old) == 1 else 'tables are'} past "
            f"{limits.freeze_warn_share:.0%} of autovacuum_freeze_max_age, {old[0].label} at "
            f"{old[0].frozen_share:.0%} ({old[0].frozen_age:,} transactions); vacuumed from "
            f"{limits.freeze_share:.0%}"
        )


def _autovacuum_behind(states: Sequence[TableState]) -> Iterator[str]:
    behind = [state for state in states if _is_behind(state)]
    for state in behind[:_MOST_TABLES]:
        if state.autovacuum_off:
            why = "autovacuum is off for it"
        else:
            last = state.autovacuum_days_ago
            came = "never came" if last is None else f"came last {last:.1f} d ago"
            why = f"it starts at {state.autovacuum_from:,.0f} and {came}"
        name = quoted(state.schema, state.name)
        yield (
            f"autovacuum does not keep up with {state.label}: {state.dead_rows:,} dead rows, {why}. "
            f"Consider ALTER TABLE {name} SET (autovacuum_enabled = true, "
            "autovacuum_vacuum_scale_factor = 0.02)"
        )
    if len(behind) > _MOST_TABLES:
        yield f"autovacuum does not keep up with {len(behind) - _MOST_TABLES} more tables"


def _is_behind(state: TableState) -> bool:
    if state.dead_rows < _BEHIND_FROM or state.autovacuum_runs:
        return False
    if state.dead_rows <= _BEHIND * state.autovacuum_from:
        return False
    last = state.autovacuum_days_ago
    return state.autovacuum_off or last is None or last > _AN_HOUR


def _horizon(connection: Connection, policy: MaintenancePolicy) -> Iterator[str]:
    old = old_ones(holders(connection), policy.old_transaction)
    for holder in old[:_MOST_HOLDERS]:
        yield (
            f"{holder} holds the xmin horizon back by {holder.age:,} transactions: what died since "
            "can't be removed"
        )
    if (role := hidden_sessions(connection)) is not None:
        yield (
            "other roles' sessions are hidden from us, so who holds dead rows back or is in the way "
            f"can't be named. Have a superuser run: GRANT pg_monitor TO {quoted(role)}"
        )


def _invalid(connection: Connection, states: Sequence[TableState]) -> Iterator[str]:
    """Tell of others' invalid indexes; ours are removed, or told by whoever could not."""
    found = invalid_indexes(connection, [state.oid for state in states])
    ours = {index.oid for intent in open_intents(connection) for index in left_by(intent, found)}
    for index in found:
        if index.oid in ours:
            continue
        if index.busy:
            yield f"{index.label} on {index.table} is invalid; it seems to be under construction"
            continue
        yield (
            f"{index.label} on {index.table} is invalid: it serves no read and may cost every write. "
            f"It is not ours, so it stays. If nobody is building it: {index.drop}"
        )
