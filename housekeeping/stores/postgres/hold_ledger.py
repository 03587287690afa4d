"""Holds placed in a database itself: anybody with a case number can see them, and none is deleted.

A run reads them when it begins. Each of its windows shares a lock with the others that placing a
hold takes alone, and looks whether they are still those: once `place` has returned, no window goes
on that does not know the hold.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.stores.postgres.ledger_schema import ledger_missing
from housekeeping.stores.postgres.statement import Statement, execute

HOLDS_LOCK = 0x686B_0000_0001  # 'hk'; the ledger's own lock is the one before

_THERE = Statement("hold.there", sql.SQL("SELECT to_regclass('housekeeping.hold') IS NOT NULL"))
_SELECT = sql.SQL(
    """
    SELECT id, relation, to_regclass(relation)::oid::bigint, condition, reason, placed_by, placed_at,
           released_by, released_at
    FROM housekeeping.hold WHERE %(all)s OR released_at IS NULL ORDER BY id
    """
)
_LIST = Statement("hold.list", _SELECT)
_VERSION = Statement(
    "hold.version",
    # All of them, not the newest id: somebody may have changed a row by hand.
    sql.SQL(
        """
        SELECT coalesce(md5(string_agg(format('%%s %%L %%L', id, relation, condition), ',' ORDER BY id)),
                        '')
        FROM housekeeping.hold WHERE released_at IS NULL
        """
    ),
)
_ALONE = Statement("hold.alone", sql.SQL("SELECT pg_advisory_xact_lock(%(key)s)"))
_SHARE = Statement("hold.share", sql.SQL("SELECT pg_advisory_xact_lock_shared(%(key)s)"))
_PLACE = Statement(
    "hold.place",
    sql.SQL(
        """
        INSERT INTO housekeeping.hold (relation, condition, reason, placed_by)
        VALUES (%(relation)s, %(condition)s, %(reason)s, %(placed_by)s) RETURNING id
        """
    ),
)
_RELEASE = Statement(
    "hold.release",
    sql.SQL(
        """
        UPDATE housekeeping.hold SET released_by = %(released_by)s, released_at = clock_timestamp()
        WHERE id = %(id)s AND released_at IS NULL
        """
    ),
)


@dataclass(frozen=True)
class PlacedHold:
    """A row of the ledger's table of holds."""

    id: int
    relation: str
    """quoted, as SQL reads it"""
    oid: int | None
    """None: there is no such table any more"""
    condition: str
    reason: str
    placed_by: str
    placed_at: datetime
    released_by: str | None
    released_at: datetime | None


def placed_holds(connection: Connection, *, released: bool = False) -> Sequence[PlacedHold]:
    """Return the holds in force, or with the `released` ones; inside a transaction.

    Raises LedgerRefused where the ledger is closed to us: we could not know.
    """
    if not _there(connection):
        return ()
    return [PlacedHold(*row) for row in execute(connection, _LIST, all=released)]


def holds_version(connection: Connection) -> str:
    """Return what changes with every hold that is placed, released or changed."""
    return str(execute(connection, _VERSION).scalar_one()) if _there(connection) else ""


def holds_now(connection: Connection) -> str:
    """Return `holds_version` where the ledger is known to be there: asked in every window."""
    return str(execute(connection, _VERSION).scalar_one())


def share_holds(connection: Connection) -> None:
    """Let no hold be placed while this transaction lasts; waits for one that is being placed."""
    execute(connection, _SHARE, key=HOLDS_LOCK)


def place(connection: Connection, relation: str, condition: str, reason: str, by: str) -> int:
    """Place a hold once every window under way has ended; return its number."""
    execute(connection, _ALONE, key=HOLDS_LOCK)
    values = {"relation": relation, "condition": condition, "reason": reason, "placed_by": by}
    return int(execute(connection, _PLACE, **values).scalar_one())


def release(connection: Connection, number: int, by: str) -> bool:
    """Release a hold; its row stays. False when there is none in force by that number."""
    return execute(connection, _RELEASE, id=number, released_by=by).rowcount == 1


def _there(connection: Connection) -> bool:
    return not ledger_missing(connection) and bool(execute(connection, _THERE).scalar_one())
