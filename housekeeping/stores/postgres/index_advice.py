"""Ready lines for indexes that would help: what to paste, with every name and value quoted."""

from collections.abc import Sequence

from psycopg2 import sql
from sqlalchemy import Connection
from sqlglot import exp, parse_one
from sqlglot.errors import SqlglotError

from housekeeping.stores.postgres.concurrent_builds import build_line
from housekeeping.stores.postgres.keys import key_column
from housekeeping.stores.postgres.names import quoted
from housekeeping.stores.postgres.preflight import Target

# An index takes immutable expressions only. These are, whatever the columns' types: functions, casts
# and arithmetic (timestamptz + interval) may not be, and only the server knows.
_IMMUTABLE = (
    exp.Column, exp.Identifier, exp.Literal, exp.Boolean, exp.Null, exp.Paren, exp.And, exp.Or,
    exp.Not, exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.Is, exp.In, exp.Between,
    exp.Coalesce,
)  # fmt: skip


def age_index(
    connection: Connection, target: Target, *, only_where: bool, only_statuses: bool
) -> str | None:
    """Return the CREATE INDEX that would yield the age in order; None where it can't be told.

    `only_where`: of rows that meet the policy's `where`. `only_statuses`: of rows in its statuses.
    """
    age = _age_text(target)
    columns = {rule.column for rule in target.rules}
    if age is None or len(columns) > 1:
        return None
    (column,) = columns
    led = f"{quoted(column)}, {age}" if column is not None else age
    conditions = []
    if only_where and target.policy.where is not None:
        conditions.append(f"({target.policy.where.strip()})")
    if only_statuses and column is not None:
        conditions.append(_statuses(connection, column, [rule.value for rule in target.rules]))
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    table = quoted(target.facts.schema, target.facts.name)
    return build_line(connection, f"{table} ({led}){where}")


def where_is_indexable(where: str | None) -> bool:
    """Say whether a partial index could have this condition."""
    return where is not None and _immutable(where)


def lookup_index(connection: Connection, schema: str, name: str, column: str) -> str:
    """Return the CREATE INDEX by which another table's rows about a row are found."""
    return build_line(connection, f"{quoted(schema, name)} ({quoted(column)})")


def analyze(schema: str, name: str) -> str:
    return f"ANALYZE {quoted(schema, name)}"


def vacuum(schema: str, name: str) -> str:
    """Return the VACUUM after a purge; the default leaves the index alone below 2 % of the pages."""
    return f"VACUUM (INDEX_CLEANUP ON, ANALYZE) {quoted(schema, name)}"


def _age_text(target: Target) -> str | None:
    age = target.age
    if (column := key_column(target)) is not None:
        return quoted(column)
    if age.expression is None:
        return f"(coalesce({', '.join(quoted(column) for column in age.columns)}))"
    return f"({age.expression.strip()})" if _immutable(age.expression) else None


def _immutable(text: str) -> bool:
    try:
        tree = parse_one(text, dialect="postgres")
    except SqlglotError:
        return False
    return all(isinstance(node, _IMMUTABLE) for node in tree.walk())


def _statuses(connection: Connection, column: str, values: Sequence[object]) -> str:
    driver = connection.connection.driver_connection
    assert driver is not None
    listed = sql.SQL(", ").join(sql.Literal(value) for value in values).as_string(driver)
    return f"{quoted(column)} IN ({listed})"
