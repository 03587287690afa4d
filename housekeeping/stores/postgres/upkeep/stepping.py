"""One VACUUM, ANALYZE or REINDEX on a connection of its own, watched by another.

None of them may run in a transaction, so their settings are the session's. The connection is closed
afterwards, and nobody else ever has it: it has to lead to the server, not to a pooler.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from math import ceil

from psycopg2 import sql
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from housekeeping.policies.errors import HousekeepingError, NobodyWatches
from housekeeping.stores.postgres.blocking import BlockWatch
from housekeeping.stores.postgres.conditions import Condition, condition_of, sentence
from housekeeping.stores.postgres.connection import connected
from housekeeping.stores.postgres.statement import Statement, execute

_COST_DELAY = "2ms"
_NEVER_STUCK = timedelta(days=365)


class Ending(StrEnum):
    DONE = "done"
    SKIPPED = "skipped"
    """somebody held a lock from the start, or nobody could watch: nothing was begun"""
    YIELDED = "yielded"
    """somebody waited for us, or we for somebody, for longer than we let happen; or nobody could
    tell any more"""
    FAILED = "failed"


@dataclass(frozen=True)
class StepOutcome:
    """How a step ended."""

    ending: Ending
    told: str | None = None
    seconds: float = 0.0
    notices: tuple[str, ...] = ()


class StepStopped(Exception):
    """The run's objection, or an error it raised, ended a step."""

    def __init__(self, reason: object) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Seen:
    """How far a step is, by the server's own progress view."""

    phase: str
    done: int
    total: int


_SETTINGS = Statement(
    "upkeep.session",
    sql.SQL(
        "SELECT set_config(name, value, false) FROM unnest(%(names)s, %(values)s) s(name, value)"
    ),
)
_PROGRESS = Statement(
    "upkeep.progress",
    sql.SQL(
        """
        SELECT phase, heap_blks_scanned, heap_blks_total FROM pg_stat_progress_vacuum
        WHERE pid = %(pid)s
        UNION ALL
        SELECT phase, sample_blks_scanned, sample_blks_total FROM pg_stat_progress_analyze
        WHERE pid = %(pid)s
        UNION ALL
        SELECT phase, CASE WHEN blocks_total > 0 THEN blocks_done ELSE tuples_done END,
               CASE WHEN blocks_total > 0 THEN blocks_total ELSE tuples_total END
        FROM pg_stat_progress_create_index WHERE pid = %(pid)s
        """
    ),
)
_WAITING_FOR = Statement(
    "upkeep.waiting_for",
    sql.SQL(
        """
        SELECT format('session %%s %%s', b.pid, coalesce(a.application_name, ''))
        FROM unnest(pg_blocking_pids(%(pid)s)) b(pid) LEFT JOIN pg_stat_activity a USING (pid)
        LIMIT 1
        """
    ),
)


@dataclass(frozen=True, kw_only=True)
class Stepping:
    """How the steps of a run are sent: by whom, how patiently, and whom they heed."""

    url: str
    application: str
    patience: timedelta
    """how long others may wait for us"""
    objection: Callable[[], object] = lambda: None
    """asked all the time; what it answers or raises ends the step"""
    seen: Callable[[Seen], None] = lambda _: None
    look: Callable[[Connection, int], None] = lambda _connection, _pid: None
    """is given the watching connection at every look"""
    stuck_after: timedelta = _NEVER_STUCK
    """how long we may wait for others"""
    lock_timeout: timedelta = timedelta(seconds=1)
    """zero: none"""
    statement_timeout: timedelta = timedelta(hours=24)
    """the net below the objection, which knows the run's time budget"""
    cost_limit: int = 500
    settings: Mapping[str, str] = field(default_factory=dict)

    def run(self, statement: Statement) -> StepOutcome:
        """Send one statement and see it through. Raises StepStopped, and a lost connection's error."""
        return self.do(lambda connection: execute(connection, statement))

    def do(self, work: Callable[[Connection], object]) -> StepOutcome:
        """Do `work` on a watched connection of its own. Raises what `run` raises."""
        begun = time.monotonic()
        outcome = self._ended(work)
        return replace(outcome, seconds=time.monotonic() - begun)

    def _ended(self, work: Callable[[Connection], object]) -> StepOutcome:
        watched = _Watched(self)
        with self.session() as connection:
            watch = BlockWatch(
                self.url, connection, self.patience, watched.objection, watched.observe
            )
            notices = _Notices(connection)
            try:
                with watch, watch.window(), connection.begin():
                    work(connection)
                return StepOutcome(Ending.DONE, notices=notices.heard())
            except NobodyWatches as error:
                return StepOutcome(Ending.SKIPPED, error.message)
            except DBAPIError as error:
                return _outcome_of(error, watch)

    @contextmanager
    def session(self) -> Iterator[Connection]:
        """Open a connection that commits each statement by itself, with our settings."""
        settings = {
            "lock_timeout": _milliseconds(self.lock_timeout),
            "statement_timeout": _milliseconds(self.statement_timeout),
            "client_connection_check_interval": "500ms",
            "client_min_messages": "warning",
            "vacuum_cost_delay": _COST_DELAY,
            "vacuum_cost_limit": str(self.cost_limit),
            **self.settings,
        }
        with connected(self.url, self.application) as plain:
            connection = plain.execution_options(isolation_level="AUTOCOMMIT")
            with connection.begin():  # SQLAlchemy's book-keeping; the server hears no BEGIN
                values = list(settings.values())
                execute(connection, _SETTINGS, names=list(settings), values=values)
            yield connection


class _Watched:
    """What the watch asks and sees of one step, in its own thread."""

    def __init__(self, stepping: Stepping) -> None:
        self._stepping = stepping
        self._waiting_since: float | None = None
        self._stuck: Stuck | None = None

    def objection(self) -> object:
        if self._stuck is not None:
            return self._stuck
        try:
            return self._stepping.objection()
        except HousekeepingError as error:  # the lease is lost
            return error

    def observe(self, watching: Connection, pid: int) -> None:
        try:
            row = execute(watching, _PROGRESS, pid=pid).first()
            if row is not None:
                self._stepping.seen(Seen(row[0], int(row[1] or 0), int(row[2] or 0)))
            self._wait_seen(execute(watching, _WAITING_FOR, pid=pid).scalar())
            self._stepping.look(watching, pid)
        except SQLAlchemyError:
            raise  # the watch tells that it is over
        except Exception:  # noqa: BLE001, S110 - a time limit's signal is the main thread's; rest is display
            pass

    def _wait_seen(self, who: str | None) -> None:
        now = time.monotonic()
        if who is None:
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = now
        elif now - self._waiting_since > self._stepping.stuck_after.total_seconds():
            self._stuck = Stuck(who)


@dataclass(frozen=True)
class Stuck:
    """We waited for somebody for too long."""

    who: str


def _outcome_of(error: DBAPIError, watch: BlockWatch) -> StepOutcome:
    condition = condition_of(error)
    if condition is Condition.CONNECTION_LOST:
        raise error
    if watch.yielded_to is not None:
        return StepOutcome(Ending.YIELDED, f"{watch.yielded_to} waited for us")
    if watch.blind is not None:
        told = f"nobody could see any more whether somebody waits for us: {watch.blind}"
        return StepOutcome(Ending.YIELDED, told)
    if isinstance(watch.objected, Stuck):
        return StepOutcome(Ending.YIELDED, f"waited too long for {watch.objected.who}")
    if watch.objected is not None:
        raise StepStopped(watch.objected) from error
    if condition is Condition.CONTENDED:
        return StepOutcome(Ending.SKIPPED, sentence(error))
    return StepOutcome(Ending.FAILED, sentence(error))


class _Notices:
    """Keeps what the server warns of; SQLAlchemy empties the driver's own list after each statement."""

    def __init__(self, connection: Connection) -> None:
        self._heard: list[str] = []
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.notices = self

    def append(self, notice: str) -> None:
        """Take a notice, as psycopg2 hands it over."""
        self._heard.append(str(notice).strip().splitlines()[0])

    def heard(self) -> tuple[str, ...]:
        return tuple(self._heard)


def _milliseconds(span: timedelta) -> str:
    return f"{ceil(span.total_seconds() * 1000)}ms"
