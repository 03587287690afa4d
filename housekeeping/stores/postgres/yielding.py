"""Yielding between many short statements: one watcher for all windows of a run."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Self

from psycopg2 import sql
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from housekeeping.policies.errors import HousekeepingError
from housekeeping.policies.pace import Pace
from housekeeping.stores.postgres.blocking import backend_pid
from housekeeping.stores.postgres.connection import connect, guarded
from housekeeping.stores.postgres.statement import Statement, execute

_log = logging.getLogger("housekeeping.blocking")
_EVERY_SECONDS = 0.2
_PACE = Pace(lock_timeout=timedelta(milliseconds=100))

_LONGEST_BLOCKED = Statement(
    "yielding.longest_blocked_by_us",
    # pg_locks tells since when somebody waits, and to every role. MATERIALIZED: pg_blocking_pids
    # looks into the lock tables, so it is asked only of those who have waited long enough.
    sql.SQL(
        """
        WITH waiting AS MATERIALIZED (
            SELECT pid, min(waitstart) AS since FROM pg_locks
            WHERE NOT granted AND pid <> %(pid)s
            GROUP BY pid HAVING min(waitstart) < clock_timestamp() - %(patience)s)
        SELECT w.pid, coalesce(a.application_name, '')
        FROM waiting w LEFT JOIN pg_stat_activity a ON a.pid = w.pid
        WHERE %(pid)s = ANY(pg_blocking_pids(w.pid))
        ORDER BY w.since LIMIT 1
        """
    ),
)
_CANCEL = Statement("yielding.cancel", sql.SQL("SELECT pg_cancel_backend(%(pid)s)"))


class WindowWatch:
    """Cancels a window of ours once somebody has waited for its locks for longer than `patience`.

    The window then fails with SQLSTATE 57014, and `yielded_to` says who waited. Nothing is ever
    cancelled outside of a window: a probe or a ledger's row stands in nobody's way.

    Its own connection is opened when a window first takes longer than a fifth of a second. Behind a
    pooler that gives each transaction another server process nobody is watched: a cancel could hit
    somebody else's statement.
    """

    def __init__(self, url: str, connection: Connection, patience: timedelta) -> None:
        self.yielded_to: str | None = None
        self._url = url
        self._patience = patience
        self._pid = _own_process(connection)
        self._lock = threading.Lock()
        self._window = 0
        """number of the window under way; 0 between two"""
        self._windows = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="window watch")

    def __enter__(self) -> Self:
        if self._pid is not None:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    @contextmanager
    def window(self) -> Iterator[None]:
        """Watch over a block that is one window's transaction."""
        with self._lock:
            self._windows += 1
            self._window, self.yielded_to = self._windows, None
        try:
            yield
        finally:
            with self._lock:  # a cancel that is being sent arrives before we go on
                self._window = 0

    def _watch(self) -> None:
        watching: Connection | None = None
        try:
            while not self._ended.wait(_EVERY_SECONDS):
                if not (window := self._window):
                    continue
                if watching is None:
                    watching = connect(self._url, "hk:watch")
                self._look(watching, window)
        except (SQLAlchemyError, HousekeepingError) as error:
            _log.warning("nobody watches any more whether we block somebody: %s", error)
        finally:
            if watching is not None:
                watching.close()

    def _look(self, watching: Connection, window: int) -> None:
        with guarded(watching, _PACE, any_plan=True):
            found = execute(
                watching, _LONGEST_BLOCKED, pid=self._pid, patience=self._patience
            ).first()
            if found is None:
                return
            with self._lock:
                if self._window != window:
                    return
                self.yielded_to = f"session {found[0]} {found[1]}".rstrip()
                execute(watching, _CANCEL, pid=self._pid)


def _own_process(connection: Connection) -> int | None:
    """Return the server process of a connection; None where a pooler may change it."""
    driver = connection.connection.driver_connection
    assert driver is not None
    pid = backend_pid(connection)
    if pid == driver.info.backend_pid:
        return pid
    _log.info("a pooler stands before the database: nobody watches whether we block somebody")
    return None
