"""Every hold on a database, looked up; and what each means for one table's rows."""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.policies.errors import ExpressionRefused, HoldUnusable
from housekeeping.policies.hold import Hold
from housekeeping.policies.policy import Policy
from housekeeping.stores.postgres.catalog import TableFacts, describe_table, find_table
from housekeeping.stores.postgres.hold_ledger import PlacedHold, holds_version, placed_holds
from housekeeping.stores.postgres.lookup import check_expression
from housekeeping.stores.postgres.statement import Statement, execute, raw

_RELATED = Statement(
    "hold.related",
    # A table, and those above and below it by partitioning or inheritance: one row, several names.
    sql.SQL(
        """
        WITH RECURSIVE above AS (
            SELECT %(oid)s::oid AS oid
            UNION SELECT i.inhparent FROM pg_inherits i JOIN above a ON a.oid = i.inhrelid),
        below AS (
            SELECT %(oid)s::oid AS oid
            UNION SELECT i.inhrelid FROM pg_inherits i JOIN below b ON b.oid = i.inhparent)
        SELECT oid::bigint FROM above UNION SELECT oid::bigint FROM below
        """
    ),
)
_HOLDABLE = "rp"  # pg_class.relkind: tables and partitioned ones


@dataclass(frozen=True, kw_only=True)
class StandingHold:
    """A hold in force whose table was found and whose expression the server understands."""

    label: str
    """for people: `hold NAME` of the settings, `hold 12` of the database"""
    facts: TableFacts
    condition: str
    reason: str

    def held(self, facts: TableFacts) -> sql.Composable:  # noqa: ARG002 - as a HeldRelative's
        """Return an expression over the table that is true for held rows, never null."""
        return sql.SQL("((\n{}\n) IS TRUE)").format(raw(self.condition))

    def guard(self, facts: TableFacts) -> sql.Composable:
        """Return `AND ...`, true for rows that are not held."""
        return sql.SQL(" AND NOT {}").format(self.held(facts))


@dataclass(frozen=True, kw_only=True)
class Holds:
    """Every hold on a database as a run found them when it began."""

    standing: tuple[StandingHold, ...] = ()
    version: str = ""
    """of those in the database; changes with every one placed or released"""

    def on(self, related: Sequence[int]) -> tuple[StandingHold, ...]:
        """Return the holds on any of these tables."""
        return tuple(hold for hold in self.standing if hold.facts.oid in related)


def holds_on_database(connection: Connection, policy: Policy) -> Holds:
    """Look up every hold on the policy's database, whatever its table; in a transaction.

    Raises HoldUnusable when any of them can't be honoured: what it means to protect is not known.
    """
    version = holds_version(connection)
    standing = [_configured(connection, policy, hold) for hold in policy.holds]
    standing += [_placed(connection, policy, hold) for hold in placed_holds(connection)]
    return Holds(standing=tuple(standing), version=version)


def _configured(connection: Connection, policy: Policy, hold: Hold) -> StandingHold:
    unusable = _Unusable(
        connection,
        policy,
        f"hold {hold.name}",
        hold.reason,
        f"Correct [holds.{hold.name}], or take it out.",
    )
    oid = find_table(connection, hold.table)
    if oid is None:
        raise unusable(f"there is no table {hold.table}")
    return _understood(connection, policy, describe_table(connection, oid), hold.where, unusable)


def _placed(connection: Connection, policy: Policy, hold: PlacedHold) -> StandingHold:
    unusable = _Unusable(
        connection,
        policy,
        f"hold {hold.id}",
        hold.reason,
        f"Release it and place one that can be: housekeeping hold release {hold.id}",
    )
    if hold.oid is None:
        raise unusable(f"there is no table {hold.relation}")
    facts = describe_table(connection, hold.oid)
    return _understood(connection, policy, facts, hold.condition, unusable)


def standing_hold(
    connection: Connection, policy: Policy, facts: TableFacts, condition: str, reason: str
) -> StandingHold:
    """Return a hold that is still to be placed. Raises HoldUnusable when it can't be."""
    unusable = _Unusable(connection, policy, "it", reason, "Nothing was placed.")
    return _understood(connection, policy, facts, condition, unusable)


@dataclass(frozen=True)
class _Unusable:
    """Makes the refusal of one hold."""

    connection: Connection
    policy: Policy
    label: str
    reason: str
    remedy: str

    def __call__(self, fault: str) -> HoldUnusable:
        return HoldUnusable(
            policy=self.policy.name,
            hold=self.label,
            reason=self.reason,
            fault=fault,
            database=self.connection.engine.url.database,
            remedy=self.remedy,
        )


def _understood(
    connection: Connection,
    policy: Policy,
    facts: TableFacts,
    condition: str,
    unusable: _Unusable,
) -> StandingHold:
    if facts.kind not in _HOLDABLE:
        raise unusable(f"{facts.label} is no table")
    if "SELECT" not in facts.privileges or facts.rows_hidden:
        raise unusable(f"{facts.role} may not read all of {facts.label}")
    try:
        check_expression(connection, policy, facts, "where", condition)
    except ExpressionRefused as refused:
        raise unusable(f"where = {condition!r}: {refused.facts['reason']}") from refused
    return StandingHold(
        label=unusable.label, facts=facts, condition=condition, reason=unusable.reason
    )


def related_to(connection: Connection, oid: int) -> tuple[int, ...]:
    """Return a table's oid and those of tables that show the same rows."""
    return tuple(int(row[0]) for row in execute(connection, _RELATED, oid=oid))


def holds_over(
    connection: Connection, policy: Policy, facts: TableFacts, holds: Holds
) -> tuple[StandingHold, ...]:
    """Return the holds on a table's own rows, each checked to be understood on this very table.

    A hold on a partitioned table holds in its partitions, and one on a partition in the whole.
    """
    found = holds.on(related_to(connection, facts.oid))
    for hold in found:
        try:
            check_expression(connection, policy, facts, "where", hold.condition)
        except ExpressionRefused as refused:
            raise HoldUnusable(
                policy=policy.name,
                hold=hold.label,
                reason=hold.reason,
                fault=f"on {facts.label}, which shares its rows: {refused.facts['reason']}",
                database=facts.database,
                remedy="Name columns without their table.",
            ) from refused
    return found
