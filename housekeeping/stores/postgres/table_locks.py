"""Who has a whole table locked. A lock timeout alone does not tell that from one row's lock, and no
smaller window helps against it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.policies.pace import Pace
from housekeeping.stores.postgres.connection import guarded
from housekeeping.stores.postgres.statement import Statement, execute

_HOLDER = Statement(
    "locks.whole_table",
    # pg_locks, because LOCK TABLE ... NOWAIT asks for privileges a restore does not have on the
    # tables its rows refer to. Who only waits counts: everybody after him queues behind him.
    sql.SQL(
        """
        WITH RECURSIVE asked (oid, written) AS (
            SELECT c.oid, n.nspname || '.' || c.relname = ANY(%(written)s::text[])
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname || '.' || c.relname = ANY(%(written)s::text[] || %(referred)s::text[])
              AND c.relkind IN ('r', 'p')
            UNION
            SELECT i.inhrelid, asked.written
            FROM asked JOIN pg_inherits i ON i.inhparent = asked.oid
        )
        SELECT n.nspname || '.' || c.relname, l.pid, l.mode, coalesce(a.application_name, '')
        FROM pg_locks l JOIN asked ON asked.oid = l.relation
        JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_stat_activity a ON a.pid = l.pid
        WHERE l.locktype = 'relation' AND l.pid IS DISTINCT FROM pg_backend_pid()
          AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
          -- what keeps an INSERT out; of a table that is only referred to, what keeps its key from
          -- being locked
          AND (l.mode IN ('ExclusiveLock', 'AccessExclusiveLock')
               OR (asked.written AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock')))
        ORDER BY l.granted DESC, l.mode LIMIT 1
        """
    ),
)


@dataclass(frozen=True)
class Holder:
    """Somebody who has a whole table locked, or waits to."""

    table: str
    who: str


@dataclass(frozen=True)
class Touched:
    """Tables a transaction of ours needs, as labels."""

    written: Sequence[str]
    referred: Sequence[str] = ()
    """rows of these are only looked at, and their keys locked"""

    def held_by(self, connection: Connection, pace: Pace) -> Holder | None:
        """Return who keeps us out of a whole table; None when nobody does."""
        with guarded(connection, pace, reading=True, any_plan=True):
            found = execute(
                connection, _HOLDER, written=list(self.written), referred=list(self.referred)
            ).first()
        if found is None:
            return None
        table, pid, mode, application = found
        session = "a prepared transaction" if pid is None else f"session {pid} {application}"
        return Holder(table, f"{session.rstrip()}, {mode}")
