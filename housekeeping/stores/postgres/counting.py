"""Counting for certain, and no further than it matters: statistics may be wrong by any factor."""

from datetime import timedelta
from typing import Protocol

from psycopg2 import sql
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from housekeeping.policies.pace import Pace
from housekeeping.stores.postgres.catalog import TableFacts
from housekeeping.stores.postgres.conditions import Condition, condition_of
from housekeeping.stores.postgres.connection import guarded
from housekeeping.stores.postgres.predicate import Predicate
from housekeeping.stores.postgres.ranges import Range
from housekeeping.stores.postgres.statement import Statement, execute

# A statement may take four targets: 20 s, some 20 M rows, a third of the time a lease is renewed in.
_PATIENCE = Pace(batch_target=timedelta(seconds=5), lock_timeout=timedelta(seconds=1))


class Named(Protocol):
    """A table by its quoted name."""

    @property
    def identifier(self) -> sql.Identifier: ...


def rows_up_to(connection: Connection, facts: Named, most: int) -> int | None:
    """Return how many rows a table has, `most` where it has as many; None when that takes too long."""
    body = sql.SQL("SELECT count(*) FROM (SELECT FROM {} LIMIT %(most)s) AS hk_counted").format(
        facts.identifier
    )
    return _counted(connection, Statement("count.rows", body), {"most": most})


def held_up_to(
    connection: Connection, facts: TableFacts, condition: sql.Composable, most: int
) -> int | None:
    """Return how many rows meet a condition, `most` where as many do; None when that takes too long."""
    body = sql.SQL(
        "SELECT count(*) FROM (SELECT FROM {} WHERE {} LIMIT %(most)s) AS hk_counted"
    ).format(facts.identifier, condition)
    return _counted(connection, Statement("count.held", body), {"most": most})


def expired_up_to(
    connection: Connection, facts: TableFacts, predicate: Predicate, most: int
) -> int | None:
    """Return how many rows would go, `most` where as many would; None when that takes too long."""
    body = sql.SQL(
        "SELECT count(*) FROM (SELECT FROM {} WHERE {} LIMIT %(most)s) AS hk_counted"
    ).format(facts.identifier, predicate.condition)
    return _counted(
        connection, Statement("count.expired", body), {**predicate.values, "most": most}
    )


def expired_in(
    connection: Connection, facts: TableFacts, range_: Range, predicate: Predicate, most: int
) -> int:
    """Return how many rows of a window would go, `most` where as many would; in a transaction."""
    body = sql.SQL(
        "SELECT count(*) FROM (SELECT FROM {} WHERE {} AND {} LIMIT %(most)s) AS hk_counted"
    ).format(facts.identifier, range_.condition(facts), predicate.condition)
    values = {**predicate.values, **range_.values, "most": most}
    return int(execute(connection, Statement("count.window", body), **values).scalar_one())


def held_in(connection: Connection, facts: TableFacts, range_: Range, predicate: Predicate) -> int:
    """Return how many rows of a window have expired and stay for a hold; in a transaction."""
    if predicate.held is None:
        return 0
    body = sql.SQL("SELECT count(*) FROM {} WHERE {} AND {} AND {}").format(
        facts.identifier, range_.condition(facts), predicate.expired, predicate.held
    )
    values = {**predicate.values, **range_.values}
    return int(execute(connection, Statement("count.held", body), **values).scalar_one())


def _counted(connection: Connection, statement: Statement, values: dict[str, object]) -> int | None:
    try:
        with guarded(connection, _PATIENCE, reading=True, any_plan=True):
            return int(execute(connection, statement, **values).scalar_one())
    except DBAPIError as error:
        if condition_of(error) in (Condition.TOO_SLOW, Condition.CONTENDED):
            return None
        raise
