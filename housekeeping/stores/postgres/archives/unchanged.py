"""A table before its drop: nobody writes to it any more, and its rows are still those exported."""

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.stores.postgres.archives.rows import (
    Fingerprint,
    fingerprint,
    require_all_rows,
    write_canonical_text,
)
from housekeeping.stores.postgres.statement import Statement, execute

CHANGED = "its rows were changed after they had been exported"


def lock_against_writers(connection: Connection, table: sql.Identifier) -> None:
    """Let readers go on, and nobody write, until the transaction that is open ends.

    Raises DBAPIError, before the rows are counted for nothing, where the drop's own lock can't be had.
    """
    attempt = connection.begin_nested()
    try:
        _lock(connection, table, "ACCESS EXCLUSIVE")
    finally:
        attempt.rollback()
    _lock(connection, table, "SHARE")


def counted(connection: Connection, table: sql.Identifier, *, hashed: bool) -> Fingerprint:
    """Count a table's rows, and sum them up as an export's snapshot did."""
    if not hashed:
        return fingerprint(connection, table)
    passing = connection.begin_nested()
    try:
        write_canonical_text(connection)
        require_all_rows(connection)
        return fingerprint(connection, table, hashed=True)
    finally:
        passing.rollback()  # takes the settings back


def _lock(connection: Connection, table: sql.Identifier, mode: str) -> None:
    body = sql.SQL("LOCK TABLE {} IN {} MODE").format(table, sql.SQL(mode))
    execute(connection, Statement("archives.lock", body))
