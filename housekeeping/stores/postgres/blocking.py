"""Yielding: what we do ends when somebody waits for it, however long it still had to go.

Unlike autovacuum, a VACUUM, REINDEX or DELETE a user starts is never cancelled by the server for
the sake of others.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, Self

import psycopg2
from psycopg2 import sql
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from housekeeping.policies.errors import HousekeepingError, NobodyWatches
from housekeeping.policies.pace import Pace
from housekeeping.stores.background import Background
from housekeeping.stores.postgres.conditions import sentence
from housekeeping.stores.postgres.connection import connect, guarded
from housekeeping.stores.postgres.interruption import reachable
from housekeeping.stores.postgres.statement import Statement, execute

_log = logging.getLogger("housekeeping.blocking")
_EVERY_SECONDS = 0.2
_PACE = Pace(lock_timeout=timedelta(milliseconds=100))
# A look that fails is no reason to end a rebuild of hours; the next one may well come through.
_LEAST_BLIND = timedelta(seconds=2)

_APPLICATION = "hk:watch"

_PID = Statement("blocking.pid", sql.SQL("SELECT pg_backend_pid()"))
_LONGEST_BLOCKED = Statement(
    "blocking.longest_blocked_by_us",
    # pg_locks tells since when somebody waits, and to every role; pg_stat_activity hides from an
    # ordinary one what others wait for. MATERIALIZED: pg_blocking_pids looks into the lock tables,
    # so it is asked only of those who wait, or of those who have for long enough.
    sql.SQL(
        """
        WITH waiting AS MATERIALIZED (
            SELECT pid, min(waitstart) AS since FROM pg_locks
            WHERE NOT granted AND pid <> %(pid)s
            GROUP BY pid HAVING min(waitstart) < clock_timestamp() - %(asked_after)s)
        SELECT w.pid, coalesce(a.application_name, ''), w.since < clock_timestamp() - %(patience)s
        FROM waiting w LEFT JOIN pg_stat_activity a ON a.pid = w.pid
        WHERE %(pid)s = ANY(pg_blocking_pids(w.pid))
        ORDER BY w.since LIMIT 1
        """
    ),
)
_CANCEL = Statement("blocking.cancel", sql.SQL("SELECT pg_cancel_backend(%(pid)s)"))


class BlockWatch(Background):
    """Watches one of our sessions from another connection, and cancels what it does in a `window`
    once somebody has waited for its locks for longer than `patience`, or one after the other has.

    The statement then fails with SQLSTATE 57014, and `yielded_to` says who waited. `objection`,
    asked at every look, cancels it at once when it answers anything; that is `objected` then.
    `observe` is given the watching connection at every look. Nothing is ever cancelled outside of a
    window: a probe or a ledger's row stands in nobody's way.

    The watching connection is opened before the block begins, which raises NobodyWatches where that
    fails. Where it fails later on, another is opened; once nobody has looked for longer than
    `patience`, or 2 s, what is under way is cancelled too, and `blind` says why.

    `many_transactions`: windows are transactions of one connection, and short. The watching connection
    is opened when one of them first takes longer than a fifth of a second, and one that fails is
    logged. Only who has waited for longer than `patience` himself is asked about. A pooler may give
    each transaction another server process, so behind one nobody is watched: a cancel could hit
    somebody else's statement.
    """

    def __init__(
        self,
        url: str,
        connection: Connection,
        patience: timedelta,
        objection: Callable[[], object] = lambda: None,
        observe: Callable[[Connection, int], None] = lambda _connection, _pid: None,
        *,
        many_transactions: bool = False,
    ) -> None:
        super().__init__(
            "block watch", _EVERY_SECONDS, "nobody watches any more whether we block somebody"
        )
        self.yielded_to: str | None = None
        self.objected: object = None
        self.blind: str | None = None
        self._url = url
        self._patience = patience
        self._many = many_transactions
        self._asked_after = patience if many_transactions else timedelta(0)
        self._objection = objection
        self._observe = observe
        self._pid = _server_process(connection)
        self._driver: Any = connection.connection.driver_connection
        self._safe = not many_transactions or _stays(connection, self._pid)
        self._watching: Connection | None = None
        self._looked = time.monotonic()
        """when somebody last looked, or nothing was under way"""
        self._lock = threading.Lock()
        self._window = 0
        """number of the window under way; 0 between two"""
        self._windows = 0
        self._blocked_looks = 0
        """looks in a row, of this window, at which we blocked somebody"""

    def __enter__(self) -> Self:
        if not self._many:
            try:
                self._watching = connect(self._url, _APPLICATION)
            except HousekeepingError as error:
                raise NobodyWatches(reason=_why(error)) from error
        return super().__enter__()

    @contextmanager
    def window(self) -> Iterator[None]:
        """Watch over a block: one statement, or one transaction of many."""
        with self._lock:
            self._windows += 1
            self._window, self._blocked_looks, self.yielded_to = self._windows, 0, None
        try:
            yield
        finally:
            with self._lock:  # a cancel that is being sent arrives before we go on
                self._window = 0

    def _wanted(self) -> bool:
        return self._safe

    def _work(self, ticks: Iterator[None]) -> None:
        try:
            for _ in ticks:
                if window := self._window:
                    self._look_or_end(window)
                else:
                    self._looked = time.monotonic()
        finally:
            self._close()

    def _look_or_end(self, window: int) -> None:
        try:
            if self._watching is None:
                self._watching = connect(self._url, _APPLICATION)
            self._look(self._watching, window)
            self._looked = time.monotonic()
        except Exception as error:
            if self._many:
                raise
            _log.info("a look whether we block somebody failed: %s", _why(error))
            self._close()
            if time.monotonic() - self._looked > max(self._patience, _LEAST_BLIND).total_seconds():
                self._end_unwatched(window, _why(error))

    def _close(self) -> None:
        if self._watching is not None:
            with suppress(SQLAlchemyError, psycopg2.Error):  # it may be what failed
                self._watching.close()
        self._watching = None

    def _end_unwatched(self, window: int, why: str) -> None:
        """Cancel what is under way by the driver's own means, as no connection of ours is left."""
        with self._lock:
            if self._window != window:
                return
            self.blind = why
            with suppress(psycopg2.Error, OSError):
                # With the network gone a cancel would hang; the server ends the statement by itself.
                if reachable(self._driver):
                    self._driver.cancel()

    def _look(self, watching: Connection, window: int) -> None:
        self.objected = self.objected or self._objection()
        with guarded(watching, _PACE, any_plan=True):
            waiting = self._waited_long_enough(watching)
            if waiting is not None or self.objected is not None:
                self._cancel(watching, window, waiting)
        with watching.begin():
            self._observe(watching, self._pid)

    def _waited_long_enough(self, watching: Connection) -> str | None:
        """Return who has us yield. Sessions that give up and come back wait one after the other."""
        asked = {"patience": self._patience, "asked_after": self._asked_after}
        blocked = execute(watching, _LONGEST_BLOCKED, pid=self._pid, **asked).first()
        self._blocked_looks = 0 if blocked is None else self._blocked_looks + 1
        if blocked is None:
            return None
        together = self._blocked_looks * _EVERY_SECONDS
        if not blocked[2] and together < self._patience.total_seconds():
            return None
        return f"session {blocked[0]} {blocked[1]}".rstrip()

    def _cancel(self, watching: Connection, window: int, waiting: str | None) -> None:
        with self._lock:
            if self._window != window:
                return
            self.yielded_to = self.yielded_to or waiting
            execute(watching, _CANCEL, pid=self._pid)


def _why(error: Exception) -> str:
    """Return in one line why nobody could look."""
    if isinstance(error, DBAPIError):
        return sentence(error)
    if isinstance(error, HousekeepingError):
        return str(error.facts.get("reason", error.message.splitlines()[0]))
    return f"{type(error).__name__}: {error}"


def _server_process(connection: Connection) -> int:
    """Return the server's process id of a connection outside a transaction."""
    with connection.begin():
        return int(execute(connection, _PID).scalar_one())


def _stays(connection: Connection, pid: int) -> bool:
    """Whether a connection keeps its server process: not where a pooler stands in between."""
    driver = connection.connection.driver_connection
    assert driver is not None
    if pid == driver.info.backend_pid:
        return True
    _log.info("a pooler stands before the database: nobody watches whether we block somebody")
    return False
