"""Whether a partitioned table has partitions for rows that are to be put back into it.

The server's own constraints say: each leaf's, with those of the levels above it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.policies.pace import Pace
from housekeeping.stores.postgres.archives.literals import bound, typed_values
from housekeeping.stores.postgres.archives.rows import (
    TextColumn,
    TextRow,
    read_canonical_text,
    write_canonical_text,
)
from housekeeping.stores.postgres.connection import guarded
from housekeeping.stores.postgres.statement import Statement, execute, identifier, raw

_ROOT = Statement(
    "archives.partition_root",
    sql.SQL("SELECT coalesce(pg_partition_root(%(oid)s::oid)::oid, %(oid)s::oid)::bigint"),
)
_LEAVES = Statement(
    "archives.leaves",
    sql.SQL(
        """
        WITH RECURSIVE tree AS (
            SELECT %(oid)s::oid AS oid
            UNION ALL
            SELECT i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid
            WHERE NOT i.inhdetachpending)
        SELECT coalesce(pg_get_partition_constraintdef(c.oid), 'true'),
               coalesce(i.inhparent = %(oid)s::oid AND pg_get_expr(c.relpartbound, 0) = %(bounds)s,
                        false)
        FROM tree t JOIN pg_class c ON c.oid = t.oid LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
        WHERE c.relkind <> 'p' ORDER BY c.oid
        """
    ),
)


@dataclass(frozen=True)
class Routes:
    """Where a partitioned table's rows can go."""

    constraints: tuple[str, ...]
    """of its leaves, every name in them with its schema"""
    same_bounds: bool
    """one of them has the very bounds that are asked for"""

    def take(
        self,
        connection: Connection,
        pace: Pace,
        columns: Sequence[TextColumn],
        rows: Sequence[TextRow],
    ) -> bool:
        """Say whether each row, its values in the order of the columns, has a leaf to go to."""
        if self.same_bounds or not rows:
            return True
        fits = sql.SQL(" OR ").join(raw(f"({each})") for each in self.constraints)
        body = sql.SQL(
            "SELECT NOT EXISTS (SELECT FROM (VALUES {}) AS hk_row ({}) WHERE ({}) IS NOT TRUE)"
        ).format(
            typed_values(len(rows), [column.cast for column in columns]),
            sql.SQL(", ").join(identifier(column.name) for column in columns),
            fits if self.constraints else sql.SQL("false"),
        )
        statement = Statement("archives.routes", body)
        with guarded(connection, pace, reading=True, any_plan=True):
            read_canonical_text(connection)
            return bool(execute(connection, statement, **bound(rows)).scalar_one())


def root_of(connection: Connection, oid: int) -> int:
    """Return the table at the top of a partition's tree: whose lease and fence guard it."""
    return int(execute(connection, _ROOT, oid=oid).scalar_one())


def routes_of(connection: Connection, oid: int, bounds: str) -> Routes:
    """Look up where rows of a partitioned table can go; inside a reading transaction.

    `bounds`: as the server writes them with UTC's clock.
    """
    write_canonical_text(connection)  # so that names are written with their schemas
    leaves = list(execute(connection, _LEAVES, oid=oid, bounds=bounds))
    return Routes(tuple(leaf[0] for leaf in leaves), any(leaf[1] for leaf in leaves))
