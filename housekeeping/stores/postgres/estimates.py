"""What the planner expects, and which index serves an order: EXPLAIN says, never count(*)."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.stores.postgres.catalog import TableFacts
from housekeeping.stores.postgres.ranges import Key
from housekeeping.stores.postgres.statement import Statement, execute, identifier, raw

_CORRELATION = Statement(
    "estimate.correlation",
    sql.SQL(
        """
        SELECT correlation FROM pg_stats
        WHERE schemaname = %(schema)s AND tablename = %(table)s AND attname = %(column)s
        """
    ),
)
_ORDER_ONLY = Statement(
    "estimate.order_only",
    sql.SQL(
        """
        SELECT set_config('enable_seqscan', 'off', true), set_config('enable_sort', 'off', true),
               set_config('enable_bitmapscan', 'off', true),
               set_config('enable_incremental_sort', 'off', true)
        """
    ),
)
_ANY_PLAN = Statement(
    "estimate.any_plan",
    sql.SQL(
        """
        SELECT set_config('enable_seqscan', 'on', true), set_config('enable_sort', 'on', true),
               set_config('enable_bitmapscan', 'on', true),
               set_config('enable_incremental_sort', 'on', true)
        """
    ),
)


def explain(
    connection: Connection, name: str, body: sql.Composable, values: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the top node of a statement's plan; the statement is not run."""
    statement = Statement(name, sql.SQL("EXPLAIN (FORMAT JSON) {}").format(body))
    plan = execute(connection, statement, **values).scalar_one()
    node: dict[str, Any] = plan[0]["Plan"]
    return node


@contextmanager
def order_only(connection: Connection) -> Iterator[None]:
    """Leave the planner nothing but indexes that yield the order asked for; in a transaction."""
    execute(connection, _ORDER_ONLY)
    yield
    execute(connection, _ANY_PLAN)  # an error ends the transaction, and the settings with it


def estimated_rows(
    connection: Connection,
    table: sql.Composable,
    condition: sql.Composable | None = None,
    values: Mapping[str, Any] | None = None,
) -> int:
    """Return how many rows of a table the planner expects to meet a condition."""
    where = sql.SQL(" WHERE {}").format(condition) if condition is not None else sql.SQL("")
    body = sql.SQL("SELECT FROM {}{}").format(table, where)
    return int(explain(connection, "estimate.rows", body, values or {})["Plan Rows"])


def estimated_expired(
    connection: Connection, table: sql.Composable, key: Key, cutoff: object, where: str | None
) -> int:
    """Return how many rows the planner expects below a cutoff; by the key, which has statistics."""
    condition: sql.Composable = sql.SQL("{}{} < %(cutoff)s").format(key.equality, key.expression)
    if where is not None:
        condition = sql.SQL("{} AND (\n{}\n)").format(condition, raw(where))
    return estimated_rows(connection, table, condition, {**key.values, "cutoff": cutoff})


def estimated_where(connection: Connection, facts: TableFacts, where: str) -> int:
    """Return how many rows the planner expects to meet a user's expression, whatever their age."""
    return estimated_rows(connection, facts.identifier, sql.SQL("(\n{}\n)").format(raw(where)))


def estimated_among(
    connection: Connection, facts: TableFacts, column: str, values: Sequence[object]
) -> int:
    """Return how many rows the planner expects to have one of the values, whatever their age."""
    condition = sql.SQL("{} = ANY(ARRAY[{}])").format(
        identifier(column), sql.SQL(", ").join(sql.Literal(value) for value in values)
    )
    return estimated_rows(connection, facts.identifier, condition)


def correlation(connection: Connection, facts: TableFacts, column: str) -> float | None:
    """Return how far the heap lies in a column's order, -1 to 1; None before the first ANALYZE."""
    found: float | None = execute(
        connection, _CORRELATION, schema=facts.schema, table=facts.name, column=column
    ).scalar()
    return found


def index_serving(
    connection: Connection, facts: TableFacts, key: Key, cutoff: object
) -> str | None:
    """Return the index that yields rows below `cutoff` in the key's order without looking aside.

    Any index will do (partial, on an expression, with the equality in front): what counts is that
    the planner needs neither a sort nor a filter.
    """
    body = sql.SQL(
        "SELECT {key} FROM {table} WHERE {equality}{key} < %(cutoff)s ORDER BY {key} LIMIT 1000"
    ).format(key=key.expression, table=facts.identifier, equality=key.equality)
    with order_only(connection):
        node = explain(connection, "estimate.index", body, {**key.values, "cutoff": cutoff})
    scan = node.get("Plans", [{}])[0] if node["Node Type"] == "Limit" else node
    if scan.get("Node Type") in ("Index Scan", "Index Only Scan") and "Filter" not in scan:
        return str(scan["Index Name"])
    return None
