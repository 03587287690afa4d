"""How a test says what expires, and runs it."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from housekeeping.engine.pacing import SystemClock
from housekeeping.engine.run import Request, Surroundings
from housekeeping.operations.purge import purge
from housekeeping.policies.events import Event, EventStream, WindowCommitted
from housekeeping.policies.hours import MaintenanceHours
from housekeeping.policies.pace import Pace
from housekeeping.policies.purge import Age, ExpiryRule, PurgePolicy, TableName
from housekeeping.policies.result import RunResult
from settings.hours import parse_hours
from tests.integration.database import Database

DAYS = timedelta(days=1)
MONTH = 30 * DAYS
BRISK = Pace(duty=1.0)  # never rests
SMALL_WINDOWS = replace(BRISK, first_window_rows=100, batch_target=timedelta(milliseconds=5))
EXPIRED = (ExpiryRule(reason="expired", keep_for=MONTH),)


def policy_on(database: Database, table: str | TableName = "events", **given: Any) -> PurgePolicy:
    """Return a policy that removes rows of `table` 30 days after their `created_at`."""
    name = table if isinstance(table, TableName) else TableName(table)
    plain: dict[str, Any] = {
        "operation": "tables.purge",
        "name": "plain",
        "database_url": database.url,
        "table": name,
        "age": Age(columns=("created_at",)),
        "rules": EXPIRED,
        "pace": BRISK,
    }
    return PurgePolicy(**{**plain, **given})


def hours_from_now(database: Database, start: int, end: int) -> MaintenanceHours:
    """Return hours from and to so many minutes from the database's now."""
    now: datetime = database.one("SELECT now()").astimezone(UTC)
    first, last = (now + timedelta(minutes=minutes) for minutes in (start, end))
    return parse_hours(f"{first:%H:%M}-{last:%H:%M}")


def per_status(column: str = "status", **days: int) -> tuple[ExpiryRule, ...]:
    """Return a rule for each status: rows of that status expire after so many days."""
    return tuple(
        ExpiryRule(reason=status, keep_for=kept * DAYS, column=column, value=status)
        for status, kept in days.items()
    )


def run(policy: PurgePolicy, around: Surroundings, **asked: Any) -> RunResult:
    """Run a purge in this thread."""
    return purge(policy, Request(run_by="tester@here", **asked), around)


@contextmanager
def running(policy: PurgePolicy, around: Surroundings, **asked: Any) -> Iterator[Future[RunResult]]:
    """Run a purge in another thread; the block ends when it has."""
    with ThreadPoolExecutor(1) as threads:
        yield threads.submit(run, policy, around, **asked)


def listening(around: Surroundings, *hear: Callable[[Event], None]) -> Surroundings:
    """Return surroundings whose runs tell each of `hear` every event, in the run's own thread."""
    return replace(around, events=EventStream([*hear]))


@dataclass
class LeapingClock(SystemClock):
    """Goes as ever, but can be put forward."""

    ahead: float = 0.0
    """seconds"""

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


class AfterWindow:
    """Does something once, between a window's commit and the next window.

    Counts the windows after which `when` is true, and acts at the one numbered `window`.
    """

    def __init__(
        self, act: Callable[[], Any], window: int = 1, when: Callable[[], bool] = lambda: True
    ) -> None:
        self._act = act
        self._window = window
        self._when = when
        self._seen = 0
        self._outcome: Any = None
        self._error: BaseException | None = None

    def __call__(self, event: Event) -> None:
        if not isinstance(event, WindowCommitted) or not self._when():
            return
        self._seen += 1
        if self._seen != self._window:
            return
        try:
            self._outcome = self._act()
        except BaseException as error:  # noqa: BLE001 - told to the test by `outcome`
            self._error = error

    @property
    def outcome(self) -> Any:
        """What `act` returned; raises what it raised, or that the window never came."""
        assert self._seen >= self._window, f"only {self._seen} windows were committed"
        if self._error is not None:
            raise self._error
        return self._outcome


def ledger_rows(database: Database) -> int:
    """Return the rows that all committed windows together removed."""
    return int(database.one("SELECT coalesce(sum(rows), 0) FROM housekeeping.run_window"))
