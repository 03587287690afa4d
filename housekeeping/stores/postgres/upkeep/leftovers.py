"""Invalid indexes: what an interrupted rebuild of ours left is dropped, all others are told.

An invalid index may be somebody's CREATE INDEX CONCURRENTLY that is still going: dropping one was
seen to end in a deadlock that killed the build. So ours is only what the ledger says we began, and
it goes only while nobody holds a lock on it, nor one on its table that a build would hold.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.stores.postgres.names import IDENTIFIER_BYTES, quoted
from housekeeping.stores.postgres.statement import Statement, execute, identifier
from housekeeping.stores.postgres.upkeep.rebuilds import Intent

# A leftover we infer to be ours, as its worker died before it could record which it is, is dropped
# at the second sighting, at least this long after the first.
SEEN_TWICE_AFTER = timedelta(minutes=10)


@dataclass(frozen=True)
class InvalidIndex:
    """An index the server does not use."""

    oid: int
    schema: str
    name: str
    table_oid: int
    table: str
    twin_oids: tuple[int, ...]
    """valid indexes on the same table with the same definition but for the name"""
    busy: bool
    """somebody holds a lock on it, or builds on its table"""
    held_by: tuple[int, ...]
    """process ids of the sessions that hold a lock on it"""

    @property
    def label(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def identifier(self) -> sql.Identifier:
        return identifier(self.schema, self.name)

    @property
    def drop(self) -> str:
        """The statement an operator would send."""
        return f"DROP INDEX CONCURRENTLY {quoted(self.schema, self.name)}"


_INVALID = Statement(
    "leftovers.invalid_indexes",
    # A build keeps a ShareUpdateExclusiveLock on its table from its first transaction to its last.
    # pg_locks shows everybody's; the progress view hides those of other roles from an ordinary one.
    sql.SQL(
        """
        SELECT i.indexrelid, n.nspname, c.relname, i.indrelid,
               format('%%s.%%s', tn.nspname, t.relname),
               ARRAY(SELECT v.indexrelid FROM pg_index v
                     WHERE v.indrelid = i.indrelid AND v.indisvalid AND v.indisready
                       AND v.indkey = i.indkey AND v.indclass = i.indclass
                       AND v.indcollation = i.indcollation AND v.indoption = i.indoption
                       AND v.indnkeyatts = i.indnkeyatts
                       AND pg_get_expr(v.indexprs, v.indrelid)
                           IS NOT DISTINCT FROM pg_get_expr(i.indexprs, i.indrelid)
                       AND pg_get_expr(v.indpred, v.indrelid)
                           IS NOT DISTINCT FROM pg_get_expr(i.indpred, i.indrelid)),
               EXISTS (SELECT FROM pg_locks l
                       WHERE l.locktype = 'relation' AND l.pid IS DISTINCT FROM pg_backend_pid()
                         AND l.database = (SELECT oid FROM pg_database
                                           WHERE datname = current_database())
                         AND (l.relation = i.indexrelid
                              OR l.relation = i.indrelid
                                 AND l.mode NOT IN ('AccessShareLock', 'RowShareLock',
                                                    'RowExclusiveLock')))
               OR EXISTS (SELECT FROM pg_stat_progress_create_index p
                          WHERE p.relid = i.indrelid AND p.datname = current_database()),
               ARRAY(SELECT l.pid FROM pg_locks l
                     WHERE l.locktype = 'relation' AND l.relation = i.indexrelid AND l.pid IS NOT NULL
                       AND l.database = (SELECT oid FROM pg_database
                                         WHERE datname = current_database()))
        FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace tn ON tn.oid = t.relnamespace
        WHERE NOT (i.indisvalid AND i.indisready AND i.indislive) AND c.relkind = 'i'
          AND (%(tables)s::oid[] IS NULL OR i.indrelid = ANY(%(tables)s::oid[]))
        ORDER BY i.indexrelid
        """
    ),
)
_DEADLOCK_TIMEOUT = Statement(
    "leftovers.deadlock_timeout",
    sql.SQL("SELECT extract(epoch FROM current_setting('deadlock_timeout')::interval)::float8"),
)


def invalid_indexes(
    connection: Connection, tables: Sequence[int] | None = None
) -> tuple[InvalidIndex, ...]:
    """Return the invalid indexes of these tables, or of the whole database."""
    rows = execute(connection, _INVALID, tables=None if tables is None else list(tables))
    return tuple(
        InvalidIndex(
            row[0], row[1], row[2], row[3], row[4], tuple(row[5]), bool(row[6]), tuple(row[7])
        )
        for row in rows
    )


def left_by(intent: Intent, found: Sequence[InvalidIndex]) -> tuple[InvalidIndex, ...]:
    """Return what a rebuild of ours left: its half-built copy, or the old index after the swap."""
    return tuple(index for index in found if _is_of(intent, index))


def _is_of(intent: Intent, index: InvalidIndex) -> bool:
    if index.table_oid != intent.table_oid or index.oid in intent.known:
        return False
    base = intent.index_name.removeprefix(f"{index.schema}.")
    if index.oid == intent.index_oid:  # swapped, and not dropped any more
        return is_copy_of(base, index.name, "ccold")
    if intent.artefact is not None:
        return index.oid == intent.artefact
    return intent.index_oid in index.twin_oids and is_copy_of(base, index.name, "ccnew")


def is_copy_of(base: str, name: str, suffix: str) -> bool:
    """Say whether a REINDEX CONCURRENTLY of `base` names its copy so: cut to 63 bytes, numbered."""
    found = re.fullmatch(rf"(?P<stem>.*)_{suffix}\d*", name, re.DOTALL)
    if found is None:
        return False
    stem = found["stem"]
    if stem == base:
        return True
    cut = len(name.encode()) >= IDENTIFIER_BYTES - 3  # between characters of up to 4 bytes
    return cut and base.startswith(stem)


def drop_patience(connection: Connection) -> float:
    """Return how long a DROP may wait for a lock, in seconds.

    Less than deadlock_timeout: whoever waits for us in turn has not yet begun to look for a
    deadlock then, and is not chosen to end it.
    """
    return float(execute(connection, _DEADLOCK_TIMEOUT).scalar_one()) / 2


def drop(connection: Connection, index: InvalidIndex) -> None:
    """Drop an index; the connection commits by itself and has its lock_timeout set."""
    body = sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(index.identifier)
    execute(connection, Statement("leftovers.drop", body))
