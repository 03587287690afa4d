"""Held rows in a table that is to be dropped whole: a detached partition, an archive's month."""

from collections.abc import Sequence

from psycopg2 import sql
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from housekeeping.policies.errors import ExpressionRefused
from housekeeping.policies.policy import Policy
from housekeeping.stores.postgres.catalog import describe_table
from housekeeping.stores.postgres.conditions import sentence
from housekeeping.stores.postgres.holds import holds_on_database, related_to
from housekeeping.stores.postgres.lookup import check_expression
from housekeeping.stores.postgres.statement import Statement, execute


def held_whole(
    connection: Connection, policy: Policy, oid: int, taken_from: Sequence[int]
) -> str | None:
    """Say which hold keeps a table from being dropped; None where none does. In a transaction that
    shares the fence's locks: then no other hold can be placed before it ends.

    `taken_from`: the tables its rows came from. A hold on any of them holds here as well.

    Raises HoldUnusable as a run would; what can't be looked up in this very table keeps it.
    """
    holds = holds_on_database(connection, policy)
    tables = {each for one in (oid, *taken_from) for each in related_to(connection, one)}
    standing = holds.on(tuple(tables)) if holds.standing else ()
    if not standing:
        return None
    facts = describe_table(connection, oid)
    told = ", ".join(f"{hold.label} ({hold.reason})" for hold in standing)
    body = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE {})").format(
        facts.identifier, sql.SQL(" OR ").join(hold.held(facts) for hold in standing)
    )
    try:
        for hold in standing:
            check_expression(connection, policy, facts, "where", hold.condition)
        with connection.begin_nested():
            held = execute(connection, Statement("hold.in_table", body)).scalar_one()
    except ExpressionRefused as refused:
        return f"{told} can't be looked up in it: {refused.facts['reason']}"
    except DBAPIError as error:
        return f"{told} could not be looked up in it: {sentence(error)}"
    return f"{told} keeps rows in it" if held else None
