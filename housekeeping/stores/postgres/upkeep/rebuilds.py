"""The ledger of rebuilds: the intent before a REINDEX begins, what came of it after.

Written before: a worker that is killed can't say any more which leftover is its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.stores.postgres.ledger_schema import ledger_missing
from housekeeping.stores.postgres.statement import Statement, execute
from housekeeping.stores.postgres.upkeep.indexes import IndexState

_BEGIN = Statement(
    "rebuild.begin",
    sql.SQL(
        """
        INSERT INTO housekeeping.rebuild
            (run_id, table_oid, index_oid, index_name, known, bytes_before)
        VALUES (%(run_id)s::uuid, %(table)s, %(index)s, %(name)s, %(known)s::oid[], %(bytes)s)
        RETURNING id
        """
    ),
)
_SAW = Statement(
    "rebuild.saw_artefact",
    sql.SQL(
        """
        UPDATE housekeeping.rebuild SET artefact = %(artefact)s
        WHERE id = %(id)s AND artefact IS NULL
        """
    ),
)
_SIGHTED = Statement(
    "rebuild.sighted",
    sql.SQL(
        """
        UPDATE housekeeping.rebuild SET seen_at = coalesce(seen_at, clock_timestamp())
        WHERE id = %(id)s
        """
    ),
)
_END = Statement(
    "rebuild.end",
    sql.SQL(
        """
        UPDATE housekeeping.rebuild SET ended_at = clock_timestamp(), done = %(done)s,
            outcome = %(outcome)s,
            bytes_after = CASE WHEN %(done)s THEN pg_relation_size(index_oid) END
        WHERE id = %(id)s AND ended_at IS NULL
        """
    ),
)
_OPEN = Statement(
    "rebuild.open",
    sql.SQL(
        """
        SELECT id, table_oid, index_oid, index_name, known, artefact,
               clock_timestamp() - seen_at
        FROM housekeeping.rebuild WHERE ended_at IS NULL ORDER BY id
        """
    ),
)
_RECENT = Statement(
    "rebuild.recent",
    # `failures`: of the rebuilds since the last that was done.
    sql.SQL(
        """
        SELECT index_name, clock_timestamp() - max(began_at) FILTER (WHERE done),
               clock_timestamp() - max(began_at) FILTER (WHERE NOT done),
               count(*) FILTER (WHERE NOT done AND began_at > coalesce(last_done, '-infinity'))
        FROM (SELECT *, max(began_at) FILTER (WHERE done) OVER (PARTITION BY index_name) AS last_done
              FROM housekeeping.rebuild
              WHERE began_at > clock_timestamp() - interval '400 days') AS rebuilds
        GROUP BY index_name
        """
    ),
)


_MADE = Statement("rebuild.made", sql.SQL("SELECT to_regclass('housekeeping.rebuild') IS NOT NULL"))


@dataclass(frozen=True)
class Intent:
    """A rebuild that was begun and not ended."""

    id: int
    table_oid: int
    index_oid: int
    index_name: str
    known: tuple[int, ...]
    """invalid indexes the table had before: not ours"""
    artefact: int | None = None
    """the index it was building, once that was seen"""
    seen_ago: timedelta | None = None


@dataclass(frozen=True)
class Past:
    """What came of the rebuilds of an index so far."""

    done_ago: timedelta | None
    failed_ago: timedelta | None
    failures: int
    """in a row"""


def begin(connection: Connection, run_id: UUID, index: IndexState, known: Sequence[int]) -> Intent:
    """Record that we are about to rebuild an index; commit it before the REINDEX is sent."""
    number = execute(
        connection,
        _BEGIN,
        run_id=str(run_id),
        table=index.table_oid,
        index=index.oid,
        name=index.label,
        known=list(known),
        bytes=index.bytes,
    ).scalar_one()
    return Intent(int(number), index.table_oid, index.oid, index.label, tuple(known))


def saw_artefact(connection: Connection, intent: Intent, artefact: int) -> None:
    """Record which index a rebuild is building."""
    execute(connection, _SAW, id=intent.id, artefact=artefact)


def sighted(connection: Connection, intent: Intent) -> None:
    """Record when we first saw what a rebuild seems to have left."""
    execute(connection, _SIGHTED, id=intent.id)


def end(connection: Connection, intent: Intent, outcome: str, *, done: bool) -> None:
    """Record that nothing of a rebuild is left behind, and what came of it."""
    execute(connection, _END, id=intent.id, outcome=outcome, done=done)


def open_intents(connection: Connection) -> tuple[Intent, ...]:
    """Return rebuilds that never ended; under the lease on maintenance their workers are gone."""
    if not _is_there(connection):
        return ()
    return tuple(
        Intent(row[0], row[1], row[2], row[3], tuple(row[4]), row[5], row[6])
        for row in execute(connection, _OPEN)
    )


def past_rebuilds(connection: Connection) -> dict[str, Past]:
    """Return what came of past rebuilds, by the index's name with its schema.

    A ledger older than this has none: a dry run does not migrate it.
    """
    if not _is_there(connection):
        return {}
    return {row[0]: Past(row[1], row[2], int(row[3])) for row in execute(connection, _RECENT)}


def _is_there(connection: Connection) -> bool:
    return not ledger_missing(connection) and bool(execute(connection, _MADE).scalar_one())
