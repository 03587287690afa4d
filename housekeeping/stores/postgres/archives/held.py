"""Holds on archived rows: what a hold protects in a table, it protects in that table's archives."""

from psycopg2 import sql
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from housekeeping.policies.policy import Policy
from housekeeping.stores.postgres.archives.known import ArchivedTable, oid_of_label
from housekeeping.stores.postgres.conditions import sentence
from housekeeping.stores.postgres.holds import StandingHold, holds_on_database, related_to
from housekeeping.stores.postgres.statement import Statement, execute, identifier


def held_by(connection: Connection, policy: Policy, table: ArchivedTable) -> str | None:
    """Say which hold keeps rows of a dated table; None where none does. In a transaction.

    A hold is on the table rows came from, and says which by its columns: the dated table has them
    too. One that can't be asked here keeps the whole table. Raises HoldUnusable.
    """
    standing = holds_on_database(connection, policy).standing
    if not standing:
        return None
    source = oid_of_label(connection, table.source)
    related = {table.oid, *(() if source is None else related_to(connection, source))}
    for hold in standing:
        if hold.facts.oid not in related:
            continue
        if (kept := _keeps(connection, hold, table)) is not None:
            return f"{hold.label} ({hold.reason}) {kept}"
    return None


def _keeps(connection: Connection, hold: StandingHold, table: ArchivedTable) -> str | None:
    # Under the held table's own name: its expression may call columns by it.
    body = sql.SQL("SELECT EXISTS (SELECT FROM {} AS {} WHERE {})").format(
        table.identifier, identifier(hold.facts.name), hold.held(hold.facts)
    )
    try:
        with connection.begin_nested():
            found = execute(connection, Statement("archives.held", body)).scalar_one()
    except DBAPIError as error:
        if error.connection_invalidated or getattr(error.orig, "pgcode", None) in (None, "57014"):
            raise
        return f"can't be asked of it: {sentence(error)}"
    return "holds rows of it" if found else None
