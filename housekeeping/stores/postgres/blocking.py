"""Yielding: a statement of ours ends when somebody waits for us, however long it still had to go.

Unlike autovacuum, a VACUUM, REINDEX or DELETE a user starts is never cancelled by the server for
the sake of others.
"""

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from psycopg2 import sql
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from housekeeping.policies.errors import HousekeepingError
from housekeeping.stores.postgres.connection import connect
from housekeeping.stores.postgres.statement import Statement, execute

_log = logging.getLogger("housekeeping.blocking")
_EVERY_SECONDS = 0.25

_PID = Statement("blocking.pid", sql.SQL("SELECT pg_backend_pid()"))
_BLOCKED = Statement(
    "blocking.blocked_by_us",
    # pg_blocking_pids looks into the lock tables: asked only for sessions that wait for a lock. By
    # pg_locks, as pg_stat_activity hides from an ordinary role what other roles' sessions wait for.
    sql.SQL(
        """
        SELECT l.pid, coalesce(a.application_name, '')
        FROM (SELECT DISTINCT pid FROM pg_locks WHERE NOT granted AND pid <> %(pid)s) AS l
        LEFT JOIN pg_stat_activity a USING (pid)
        WHERE %(pid)s = ANY(pg_blocking_pids(l.pid))
        ORDER BY a.state_change NULLS LAST LIMIT 1
        """
    ),
)
_CANCEL = Statement("blocking.cancel", sql.SQL("SELECT pg_cancel_backend(%(pid)s)"))


class BlockWatch:
    """Watches one of our sessions from another connection, and cancels what it does once somebody
    has waited for it for longer than `patience` seconds. `objection`, asked at every look, cancels
    it at once when it answers anything. `observe` is given the watching connection at every look.

    `yielded_to` then says who waited; the statement fails with SQLSTATE 57014.
    """

    def __init__(
        self,
        url: str,
        connection: Connection,
        patience: float,
        objection: Callable[[], object] = lambda: None,
        observe: Callable[[Connection, int], None] = lambda _connection, _pid: None,
    ) -> None:
        self.yielded_to: str | None = None
        self.objected: object = None
        self._url = url
        self._patience = patience
        self._objection = objection
        self._observe = observe
        self._pid = backend_pid(connection)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="block watch")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        try:
            watching = connect(self._url, "hk:watch")
        except HousekeepingError as error:
            _log.warning("nobody watches whether we block somebody: %s", error)
            return
        try:
            waited = 0.0
            while not self._ended.wait(_EVERY_SECONDS):
                with watching.begin():
                    waited = self._look(watching, waited)
        except SQLAlchemyError as error:
            _log.warning("nobody watches any more whether we block somebody: %s", error)
        finally:
            watching.close()

    def _look(self, watching: Connection, waited: float) -> float:
        self.objected = self.objected or self._objection()
        blocked = execute(watching, _BLOCKED, pid=self._pid).first()
        waited = waited + _EVERY_SECONDS if blocked is not None else 0.0
        if blocked is not None and waited >= self._patience:
            self.yielded_to = f"session {blocked[0]} {blocked[1]}".rstrip()
        if (self.yielded_to or self.objected) and not self._ended.is_set():
            execute(watching, _CANCEL, pid=self._pid)
        self._observe(watching, self._pid)
        return waited


def backend_pid(connection: Connection) -> int:
    """Return the server's process id of a connection outside a transaction."""
    with connection.begin():
        return int(execute(connection, _PID).scalar_one())
