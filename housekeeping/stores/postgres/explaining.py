"""The statements a run would send for a window, each with the server's plan for it.

Plain EXPLAIN: nothing is executed. Not even what planning would execute: the planner evaluates stable
functions to estimate by, and pg_current_xact_id(), by which a run tells the rows it has locked,
assigns a transaction id. A constant stands in its place, whose selectivity is the same.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from psycopg2 import sql
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from housekeeping.stores.postgres.conditions import sentence
from housekeeping.stores.postgres.deletion import Deletion
from housekeeping.stores.postgres.emptying import CHILD_ROWS
from housekeeping.stores.postgres.preflight import Target
from housekeeping.stores.postgres.statement import Statement, execute

_OWN_XID = re.compile(r"pg_current_xact_id\(\)::xid")
_ANY_XID = "'3'::xid"
_LARGE_PAGES = 1_024  # 8 MB, as engine.planning.SMALL_TABLE_BLOCKS

_PAGES = Statement(
    "explain.table_pages",
    # A partial index that is read from end to end is a short way; any other is all of the table.
    sql.SQL(
        """
        SELECT pg_relation_size(c.oid) / current_setting('block_size')::int
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = %(schema)s AND c.relname = %(name)s
          AND NOT EXISTS (SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
                          WHERE i.indrelid = c.oid AND x.relname = %(index)s AND i.indpred IS NOT NULL)
        """
    ),
)


@dataclass(frozen=True, kw_only=True)
class Explained:
    """A statement as it would be sent, and the server's plan for it."""

    name: str
    text: str
    """with `%(name)s` where values are bound"""
    lines: tuple[str, ...]
    """of EXPLAIN"""
    reads_whole: tuple[tuple[str, str], ...] = ()
    """large tables, schema and name, that are read from end to end for every window"""
    problem: str | None = None
    """why there is no plan: somebody holds the table"""


def window_statements(
    target: Target, deletion: Deletion, limit: int | None
) -> Iterator[tuple[Statement, Mapping[str, Any]]]:
    """Yield what a run sends to delete a window, with its values, in the order it is sent."""
    values = {**deletion.values, "limit": limit, "children": CHILD_ROWS + 1}
    if not (target.pins or limit is not None):
        yield deletion.direct(), values
        return
    yield deletion.pin(skip_locked=False), values
    for child in target.children:
        if child.keeps:
            yield deletion.pin_children(child, skip_locked=False), values
    for child in target.children:
        yield deletion.count_children(child), values
    yield deletion.delete_pinned(), values


def explained(
    connection: Connection, statements: Iterable[tuple[Statement, Mapping[str, Any]]]
) -> tuple[Explained, ...]:
    """Explain statements under the settings of the transaction that is open.

    Planning a DELETE takes the lock a DELETE takes, for a moment; where somebody holds the table
    against that, the statement comes without its plan.
    """
    return tuple(_one(connection, statement, values) for statement, values in statements)


def shown_as(connection: Connection, statement: Statement) -> str:
    """Return a statement's text in one line."""
    return " ".join(statement.text(connection).split())


def _one(connection: Connection, statement: Statement, values: Mapping[str, Any]) -> Explained:
    text = shown_as(connection, statement)
    try:
        with connection.begin_nested():
            lines = [row[0] for row in _explain(connection, statement, values, "")]
            plan = _explain(connection, statement, values, "(FORMAT JSON, VERBOSE) ")
            scanned = tuple(_whole_scans(plan.scalar_one()[0]["Plan"]))
    except DBAPIError as error:
        return Explained(name=statement.name, text=text, lines=(), problem=sentence(error))
    large = {
        (schema, name): None
        for schema, name, index in scanned
        if _pages(connection, schema, name, index) > _LARGE_PAGES
    }
    return Explained(name=statement.name, text=text, lines=tuple(lines), reads_whole=tuple(large))


def _explain(
    connection: Connection, statement: Statement, values: Mapping[str, Any], options: str
) -> Any:
    driver = connection.connection.driver_connection
    assert driver is not None
    body = _OWN_XID.sub(_ANY_XID, statement.body.as_string(driver))
    asked = Statement("explain.statement", sql.SQL(f"EXPLAIN {options}") + sql.SQL(body))
    return execute(connection, asked, **values)


def _whole_scans(node: Mapping[str, Any]) -> Iterator[tuple[str, str, str | None]]:
    """Yield schema, table and index of scans from end to end.

    With enable_seqscan off, a Seq Scan often goes by the name of an Index Scan without a condition.
    """
    kind, index = node["Node Type"], node.get("Index Name")
    if kind == "Seq Scan" or (
        kind in ("Index Scan", "Index Only Scan") and "Index Cond" not in node
    ):
        yield node["Schema"], node["Relation Name"], index
    for below in node.get("Plans", ()):
        yield from _whole_scans(below)


def _pages(connection: Connection, schema: str, name: str, index: str | None) -> int:
    found = execute(connection, _PAGES, schema=schema, name=name, index=index).scalar()
    return int(found or 0)
