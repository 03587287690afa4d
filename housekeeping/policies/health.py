"""What a run asks of a database's health before it goes on, and what the answers mean."""

from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum

_MB = 1024 * 1024


class Verdict(IntEnum):
    """What a signal lets a run do; the gravest of all signals counts."""

    GO = 0
    SLOW = 1
    """go on, but rest several times longer and with windows that do not grow"""
    STOP = 2
    """wait until it clears"""


@dataclass(frozen=True)
class Reading:
    """One signal's answer, and why."""

    signal: str
    verdict: Verdict
    reason: str
    """a sentence without row data: names, figures, and what to do where something is missing"""

    def __str__(self) -> str:
        return f"{self.verdict.name.lower()}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class HealthLimits:
    """From where on a database is too busy for housekeeping. None switches a signal off.

    A limit that was reached is held until the figure is at half of it again; from half of it on a
    run goes slowly.

    `enabled`: false asks no signal at all; flags, budgets and the duty ratio still count.
    `max_replication_lag`, `max_replication_bytes`: how far a standby may be behind.
    `expected_standbys`: by application_name; one that is missing counts as infinitely far behind.
    `ignored_standbys`: by application_name; such as one that is delayed on purpose.
    `max_lock_waiters`: sessions of the database that wait for a lock for over a second.
    `pause_during_autovacuum`: a vacuum on the run's own table stops it; else it slows it down.
    `max_archive_backlog`: finished WAL segments that are not archived yet (GitLab's figure).
    `max_wal_rate`: bytes of WAL the whole server writes a second, ours included.
    `min_free_disk`: bytes that stay free where the server keeps its data. `free_disk_sql` is a
    query that tells them; without one they are looked up where the server is on this machine.
    `sql`: a query of the user's own; what it answers says whether to go (own_sql.py).
    `patience`: how long a run waits for a signal to clear before it ends.
    `yield_after`: how long somebody waits for a lock of ours before our statement is cancelled.
    """

    enabled: bool = True
    max_replication_lag: timedelta = timedelta(seconds=10)
    max_replication_bytes: int = 256 * _MB
    expected_standbys: tuple[str, ...] = ()
    ignored_standbys: tuple[str, ...] = ()
    max_lock_waiters: int = 20
    pause_during_autovacuum: bool = False
    max_archive_backlog: int = 42
    max_wal_rate: int | None = None
    min_free_disk: int | None = None
    free_disk_sql: str | None = None
    sql: str | None = None
    patience: timedelta = timedelta(minutes=30)
    yield_after: timedelta = timedelta(milliseconds=500)


def worst(readings: tuple[Reading, ...]) -> Reading | None:
    """Return the gravest reading, the first of several; None when everything lets us go."""
    grave = [reading for reading in readings if reading.verdict is not Verdict.GO]
    return max(grave, key=lambda reading: reading.verdict, default=None)
