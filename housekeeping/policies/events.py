"""The event stream of a run. Alerts read these names: adding a field is free, renaming is not.

    housekeeping.run.started       once, after the lease is ours
    housekeeping.window.committed  after every transaction that counted
    housekeeping.window.shrunk     a window did not fit its time and was halved
    housekeeping.window.passed     rows stayed: another session holds them, or they refuse to go
    housekeeping.run.waiting       for a lost worker's lease, for a place on the database or for other
                                   workers, or until the database is well again
    housekeeping.run.paced         once per change: a health signal slows the run, stops it, clears
    housekeeping.step.progress     how far a VACUUM, ANALYZE or REINDEX is
    housekeeping.step.ended        after each of them, however it ended
    housekeeping.run.stopped       once per run, however it ended; no key is ever missing

An event is published to every subscriber of the stream; a subscriber that fails is logged and
never harms the run.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

_log = logging.getLogger("housekeeping")


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something a run did. `operation`, `policy` and `run_id` say which run."""

    NAME: ClassVar[str] = ""
    LEVEL: ClassVar[int] = logging.DEBUG
    operation: str
    policy: str
    run_id: str

    def fields(self) -> dict[str, Any]:
        return {"name": self.NAME, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class RunStarted(Event):
    NAME: ClassVar[str] = "housekeeping.run.started"
    LEVEL: ClassVar[int] = logging.INFO
    table: str
    walk: str
    """how the table is walked, and why"""
    estimate: int
    """rows the planner expects to go"""
    dry_run: bool
    resumed: bool


@dataclass(frozen=True, kw_only=True)
class WindowCommitted(Event):
    NAME: ClassVar[str] = "housekeeping.window.committed"
    rows: int
    seconds: float
    done: int
    """rows of the run so far"""
    estimate: int
    percent: int
    """0 to 100, by how much of the table is walked or of the estimate is done"""


@dataclass(frozen=True, kw_only=True)
class WindowShrunk(Event):
    NAME: ClassVar[str] = "housekeeping.window.shrunk"
    LEVEL: ClassVar[int] = logging.INFO
    window: str
    cause: str


@dataclass(frozen=True, kw_only=True)
class WindowPassed(Event):
    NAME: ClassVar[str] = "housekeeping.window.passed"
    LEVEL: ClassVar[int] = logging.WARNING
    window: str
    cause: str
    rows: int


@dataclass(frozen=True, kw_only=True)
class RunWaiting(Event):
    NAME: ClassVar[str] = "housekeeping.run.waiting"
    cause: str
    seconds: float
    done: int = 0
    """rows of the run so far"""
    estimate: int = 0
    percent: int = 0


@dataclass(frozen=True, kw_only=True)
class RunPaced(Event):
    NAME: ClassVar[str] = "housekeeping.run.paced"
    LEVEL: ClassVar[int] = logging.INFO
    signal: str
    verdict: str
    """go, slow or stop"""
    reason: str


@dataclass(frozen=True, kw_only=True)
class StepProgress(Event):
    NAME: ClassVar[str] = "housekeeping.step.progress"
    step: str
    """what is done to what"""
    phase: str
    """in the server's words"""
    done: int
    total: int
    """of the phase, in blocks or rows; 0 where the server does not tell"""
    percent: int
    """0 to 100, of the whole run"""


@dataclass(frozen=True, kw_only=True)
class StepEnded(Event):
    NAME: ClassVar[str] = "housekeeping.step.ended"
    LEVEL: ClassVar[int] = logging.INFO
    step: str
    reason: str
    """why it was done"""
    outcome: str
    seconds: float
    told: str = ""


@dataclass(frozen=True, kw_only=True)
class RunStopped(Event):
    NAME: ClassVar[str] = "housekeeping.run.stopped"
    LEVEL: ClassVar[int] = logging.INFO
    stop_reason: str
    success: bool
    rows: int
    batches: int
    seconds: float
    details: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    waits: Mapping[str, float] = field(default_factory=dict)
    """seconds the run was stopped or slowed down, by health signal"""
    error: str = ""


Subscriber = Callable[[Event], None]


class EventStream:
    """Hands every event to every subscriber, in the order they subscribed."""

    def __init__(
        self,
        subscribers: Iterable[Subscriber] = (),
        passing: tuple[type[BaseException], ...] = (),
    ) -> None:
        self._subscribers = list(subscribers)
        self._passing = passing

    def publish(self, event: Event) -> None:
        """Tell all subscribers; one that raises is logged, the others still hear."""
        for subscriber in self._subscribers:
            try:
                subscriber(event)
            except self._passing:  # a time limit fires wherever it finds us; it is not theirs
                raise
            except Exception:  # noqa: BLE001 - whatever a subscriber does, the run goes on
                _log.exception("a subscriber failed on %s", event.NAME)


def log_event(event: Event) -> None:
    """Log an event: a sentence for people, `extra["event"]` for machines.

    One key under `extra`, so that no field collides with the log record's own.
    """
    level = event.LEVEL
    if isinstance(event, RunStopped) and event.error:
        level = logging.ERROR
    fields = event.fields()
    told = " ".join(f"{key}={value}" for key, value in fields.items() if key != "name")
    _log.log(level, "%s %s", event.NAME, told, extra={"event": fields})
