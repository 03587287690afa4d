"""Taking a partition out of its table, and dropping it later: nobody waits behind us for long.

concurrently  waits for those who use the table without holding a lock they would wait for; can't
              be in a transaction, so what was cut short is found and finalized by the next run
plainly       where CONCURRENTLY is impossible: an exclusive lock on the table for some
              milliseconds, and at most one lock_timeout of waiting for it
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

from psycopg2 import sql
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from housekeeping.policies.errors import HousekeepingError, NobodyWatches
from housekeeping.policies.pace import Pace
from housekeeping.stores.postgres.blocking import BlockWatch
from housekeeping.stores.postgres.connection import connected, guarded
from housekeeping.stores.postgres.detached_ledger import Detached
from housekeeping.stores.postgres.partitions import Partition
from housekeeping.stores.postgres.statement import Statement, execute, identifier

# While it waits for transactions that use the table, CONCURRENTLY holds no lock anybody wants.
PATIENCE = timedelta(seconds=10)
_DROP_PATIENCE = timedelta(seconds=60)  # dropping 1 TB took some seconds of unlinking

_SET_SESSION = Statement(
    "detach.session",
    sql.SQL(
        """
        SELECT set_config('lock_timeout', %(timeout)s, false),
               set_config('statement_timeout', %(timeout)s, false),
               set_config('client_connection_check_interval', '500ms', false)
        """
    ),
)
_RESET = ("lock_timeout", "statement_timeout", "client_connection_check_interval")
_ATTACHED = Statement(
    "detach.still_attached",
    sql.SQL(
        """
        SELECT EXISTS (
            SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
            JOIN pg_namespace n ON n.oid = c.relnamespace
            JOIN pg_class p ON p.oid = i.inhparent JOIN pg_namespace pn ON pn.oid = p.relnamespace
            WHERE i.inhrelid = %(oid)s AND i.inhparent = %(parent)s AND NOT i.inhdetachpending
              AND n.nspname = %(schema)s AND c.relname = %(name)s
              AND pn.nspname = %(parent_schema)s AND p.relname = %(parent_name)s
              AND pg_get_expr(c.relpartbound, 0) = %(bounds)s)
        """
    ),
)
_OURS = Statement(
    "detach.still_ours",
    sql.SQL(
        """
        SELECT EXISTS (
            SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.oid = %(oid)s AND n.nspname = %(schema)s AND c.relname = %(name)s
              AND c.relkind IN ('r', 'p') AND NOT c.relispartition
              AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid))
        """
    ),
)
_FOREIGN_KEYS = Statement(
    "detach.own_foreign_keys",
    sql.SQL(
        """
        WITH RECURSIVE tree AS (
            SELECT %(oid)s::oid AS oid
            UNION ALL SELECT i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid)
        SELECT n.nspname, c.relname, f.conname
        FROM tree t JOIN pg_constraint f ON f.conrelid = t.oid AND f.contype = 'f'
        JOIN pg_class c ON c.oid = t.oid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE f.conparentid = 0 ORDER BY f.conname
        """
    ),
)
_LOCKERS = Statement(
    "detach.lockers",
    sql.SQL(
        """
        SELECT a.pid, coalesce(a.application_name, ''),
               extract(epoch FROM clock_timestamp() - a.xact_start)::bigint
        FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
        WHERE l.locktype = 'relation' AND l.relation = ANY(%(oids)s::oid[]) AND l.granted
          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND a.pid <> pg_backend_pid()
        ORDER BY a.xact_start LIMIT 1
        """
    ),
)


class PartitionChanged(HousekeepingError):
    """{table} is no longer the partition it was when the run began; it was left alone."""


def still_attached(connection: Connection, parent: Partition, partition: Partition) -> bool:
    """Say whether a partition is where it was, under the names and with the bounds it had."""
    return bool(
        execute(
            connection,
            _ATTACHED,
            oid=partition.oid,
            parent=parent.oid,
            schema=partition.schema,
            name=partition.name,
            parent_schema=parent.schema,
            parent_name=parent.name,
            bounds=partition.bounds,
        ).scalar_one()
    )


def detach_plainly(
    connection: Connection, parent: Partition, partition: Partition, default: Partition | None
) -> None:
    """Detach inside the transaction that is open; its lock_timeout bounds the wait, all of it.

    The parent first, as every query does: child before parent is how others deadlocked. With its
    lock in hand nobody may be kept waiting for a second one, so that is taken at once or not at all.

    Raises PartitionChanged, and DBAPIError where somebody is in the way.
    """
    lock = sql.SQL("LOCK TABLE ONLY {} IN ACCESS EXCLUSIVE MODE").format(parent.identifier)
    execute(connection, Statement("detach.lock_parent", lock))
    parts = [part.identifier for part in (partition, default) if part is not None]
    lock = sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE NOWAIT").format(
        sql.SQL(", ").join(parts)
    )
    execute(connection, Statement("detach.lock_partition", lock))
    if not still_attached(connection, parent, partition):
        raise PartitionChanged(table=partition.label)
    execute(connection, _alter(parent, partition, ""))


def detach_concurrently(
    url: str,
    parent: Partition,
    partition: Partition,
    pace: Pace,
    objection: Callable[[], object],
) -> None:
    """Detach over a connection of its own; a record of the intent has to be committed before.

    Gives up after 10 s, as soon as somebody has waited for us for a lock_timeout, or when
    `objection` answers anything. Cut short, the partition may be left pending: its rows are out of
    sight, and `finalize` ends it.

    Raises NobodyWatches where nobody can see whether somebody waits for us, and DBAPIError.
    """
    with _autocommitting(url) as connection:
        watch = BlockWatch(url, connection, pace.lock_timeout, objection)
        try:
            with watch, watch.window():
                execute(connection, _alter(parent, partition, " CONCURRENTLY"))
        except DBAPIError as error:
            if watch.blind is None:
                raise
            raise NobodyWatches(reason=watch.blind) from error


def finalize(connection: Connection, detached: Detached) -> None:
    """End a detaching that was cut short; inside the transaction that is open.

    Waits for snapshots older than itself, up to the transaction's lock_timeout.
    """
    body = sql.SQL("ALTER TABLE {} DETACH PARTITION {} FINALIZE").format(
        identifier(*detached.parent), detached.identifier
    )
    execute(connection, Statement("detach.finalize", body))


def own_foreign_keys(connection: Connection, oid: int) -> list[tuple[str, str, str]]:
    """Return the foreign keys a detached table has on others: schema, table, name."""
    return [(row[0], row[1], row[2]) for row in execute(connection, _FOREIGN_KEYS, oid=oid)]


def drop_foreign_key(connection: Connection, key: tuple[str, str, str]) -> None:
    """Drop one; it takes a lock on the table it points at, so each has a transaction of its own."""
    body = sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(
        identifier(*key[:2]), identifier(key[2])
    )
    execute(connection, Statement("detach.drop_foreign_key", body))


def lock_detached(connection: Connection, detached: Detached) -> None:
    """Wait for whoever uses a detached table, up to the transaction's lock_timeout."""
    lock = sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(detached.identifier)
    execute(connection, Statement("detach.lock_detached", lock))


def drop_detached(connection: Connection, detached: Detached) -> None:
    """Drop a detached and locked table inside the transaction that is open; never what depends on it.

    Raises PartitionChanged when it is another table by now, or attached again.
    """
    who = {"oid": detached.oid, "schema": detached.schema, "name": detached.name}
    if not execute(connection, _OURS, **who).scalar_one():
        raise PartitionChanged(table=detached.label)
    body = sql.SQL("DROP TABLE {} RESTRICT").format(detached.identifier)
    execute(connection, Statement("detach.drop", body))


@contextmanager
def dropping(connection: Connection, pace: Pace) -> Iterator[None]:
    """Open a transaction for a drop: as short a wait as ever, more time for the work."""
    longer = replace(pace, batch_target=_DROP_PATIENCE / 4)
    with guarded(connection, longer, any_plan=True):
        yield


@contextmanager
def finalizing(connection: Connection, pace: Pace) -> Iterator[None]:
    """Open a transaction for `finalize`, which waits for others without being in their way."""
    patient = replace(pace, lock_timeout=PATIENCE, batch_target=PATIENCE / 4)
    with guarded(connection, patient, any_plan=True):
        yield


def in_the_way(connection: Connection, oids: list[int]) -> str | None:
    """Say who has used one of these tables in a transaction for longest; None where nobody does."""
    found = execute(connection, _LOCKERS, oids=oids).first()
    if found is None:
        return None
    return f"session {found[0]} {found[1]}".rstrip() + f", in a transaction since {found[2]} s"


def _alter(parent: Partition, partition: Partition, how: str) -> Statement:
    body = sql.SQL("ALTER TABLE {} DETACH PARTITION {}{}").format(
        parent.identifier, partition.identifier, sql.SQL(how)
    )
    return Statement("detach", body)


@contextmanager
def _autocommitting(url: str) -> Iterator[Connection]:
    """Open a connection of its own outside any transaction; it hands a pooler back a clean session."""
    with connected(url, "hk:detach") as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        milliseconds = int(PATIENCE.total_seconds() * 1000)
        execute(connection, _SET_SESSION, timeout=f"{milliseconds}ms")
        connection.commit()  # SQLAlchemy's own notion of a transaction; the server knows of none
        try:
            yield connection
        finally:
            if not (connection.closed or connection.invalidated):
                for name in _RESET:
                    execute(connection, Statement("detach.reset", sql.SQL(f"RESET {name}")))
