"""Held rows in a table that is to be dropped whole: a detached partition, an archive's month."""

from collections.abc import Iterable

from psycopg2 import sql
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from housekeeping.policies.policy import Policy
from housekeeping.stores.postgres.catalog import describe_table
from housekeeping.stores.postgres.conditions import Condition, condition_of, sentence
from housekeeping.stores.postgres.holds import StandingHold, holds_on_database, related_to
from housekeeping.stores.postgres.statement import Statement, execute, identifier


def held_whole(
    connection: Connection, policy: Policy, oid: int, taken_from: Iterable[int]
) -> str | None:
    """Say which hold keeps a table from being dropped; None where none does. In a transaction that
    shares the fence's locks: then no other hold can be placed before it ends.

    `taken_from`: the tables its rows came from. A hold on any of them, or on one that shows the same
    rows, holds here as well.

    Raises HoldUnusable as a run would, and DBAPIError where the question was cut short or the
    connection is lost. A hold that can't be asked of this very table keeps it.
    """
    standing = holds_on_database(connection, policy).standing
    if not standing:
        return None
    related = {each for one in (oid, *taken_from) for each in related_to(connection, one)}
    for hold in standing:
        if hold.facts.oid not in related:
            continue
        if (kept := _keeps(connection, hold, oid)) is not None:
            return f"{hold.label} ({hold.reason}) {kept}"
    return None


def _keeps(connection: Connection, hold: StandingHold, oid: int) -> str | None:
    # Under the held table's own name: its expression may call columns by it.
    body = sql.SQL("SELECT EXISTS (SELECT FROM {} AS {} WHERE {})").format(
        describe_table(connection, oid).identifier,
        identifier(hold.facts.name),
        hold.held(hold.facts),
    )
    try:
        with connection.begin_nested():
            found = execute(connection, Statement("hold.in_table", body)).scalar_one()
    except DBAPIError as error:
        if condition_of(error) in (Condition.CONNECTION_LOST, Condition.TOO_SLOW):
            raise
        return f"can't be asked of it: {sentence(error)}"
    return "holds rows of it" if found else None
