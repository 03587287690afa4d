"""Before every window: is the database well, and are these our hours? Waits, slows down, or ends.

A stop is waited out in steps in which the operator's flags, the lease and the budgets are heard;
the run goes on by itself when the signal clears.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from housekeeping.engine.health import Health
from housekeeping.engine.pacing import Budget, Clock, Rest
from housekeeping.engine.run import Surroundings
from housekeeping.policies.health import Reading, Verdict, worst
from housekeeping.policies.pace import Pace
from housekeeping.policies.policy import Policy
from housekeeping.policies.result import StopReason
from housekeeping.stores.postgres.blocking import BlockWatch
from housekeeping.stores.postgres.conditions import Condition, condition_of, sentence
from housekeeping.stores.postgres.slicing import SmallRests

# Within two windows a run hears of what changed. Where no standby has to keep up with each of them,
# not before a tenth of a second is over: a sample takes 3 ms, a small window no longer.
_FRESH_SECONDS = 1.0
_FRESH_WINDOWS = 2
_LEAST_SECONDS = 0.1
_STEP_SECONDS = 1.0
_SLOW_AFTER_YIELDING_SECONDS = 10.0
BLOCKED = "blocked_sessions"
HOURS = "only_between"
_TOLD_FROM_SECONDS = 1.0  # a wait that long is worth a warning in the result


class Readings(Protocol):
    """Who knows how the database is; see engine.health.Health."""

    @property
    def replicated(self) -> bool: ...

    def readings(self, max_age: float) -> tuple[Reading, ...]: ...


class Watch(Protocol):
    """Who sees to it that nobody waits for us; see stores.postgres.blocking.BlockWatch."""

    yielded_to: str | None

    def window(self) -> AbstractContextManager[None]: ...


class Hears(Protocol):
    """Whom a throttle tells; see engine.reporting.RunReport."""

    def waiting(self, reading: Reading, seconds: float) -> None: ...

    def paced(self, reading: Reading) -> None: ...


@dataclass
class Waited:
    """What a run waited for, and why it ended early if it did; goes into the result."""

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """by signal"""
    reasons: dict[str, str] = field(default_factory=dict)
    """the last one of each signal that stopped the run"""
    ended_for: str | None = None

    def warnings(self) -> tuple[str, ...]:
        """Tell what the run waited for, in sentences."""
        told = [
            f"waited {self.seconds[signal]:.0f} s for {signal}: {reason}"
            for signal, reason in self.reasons.items()
            if self.seconds[signal] >= _TOLD_FROM_SECONDS
        ]
        return (*told, self.ended_for) if self.ended_for else tuple(told)

    def as_dict(self) -> dict[str, float]:
        """Return seconds by signal."""
        return {signal: round(seconds, 4) for signal, seconds in self.seconds.items()}


class Hours:
    """The maintenance window, by the database's clock: what it said at the start, and time since."""

    def __init__(self, pace: Pace, now: datetime, clock: Clock) -> None:
        self._hours = pace.only_between
        self._now = now
        self._clock = clock
        self._begun = clock.monotonic()

    def closed(self) -> str | None:
        """Return when it opens, if it is closed; None while the run may work."""
        if self._hours is None:
            return None
        moment = self._now + timedelta(seconds=self._clock.monotonic() - self._begun)
        return None if self._hours.open_at(moment) else self._hours.opens(moment)


class Throttle:
    """Stands before every window of a run's loop. This one lets everything through."""

    def __init__(self, rest: Rest) -> None:
        self._rest = rest

    @property
    def slow(self) -> bool:
        """Whether to rest longer, and not to grow windows."""
        return False

    def hold(self) -> StopReason | None:
        """Wait until the database is well; return why to end instead, or None to go on."""
        return None

    def window(self) -> AbstractContextManager[None]:
        """Watch over one window, so that nobody waits long for it."""
        return nullcontext()

    def cause(self, error: DBAPIError) -> str:
        """Say why a window failed."""
        return sentence(error)

    def rest_after(self, worked_seconds: float, rested: float = 0.0) -> float:
        """Rest for what a window's work has earned and did not rest inside; return the seconds."""
        return self._rest.after(worked_seconds, rested)

    def rests_within(self, target_seconds: float) -> SmallRests | None:
        """Return how to rest inside a transaction; None where the run never rests."""
        return self._rest.within(target_seconds, slowly=self.slow)


class HealthThrottle(Throttle):
    """Holds a run by the health of its database."""

    def __init__(
        self,
        pace: Pace,
        health: Readings,
        watch: Watch,
        hours: Hours,
        budget: Budget,
        rest: Rest,
        clock: Clock,
        objection: Callable[[], StopReason | None],
        tells: Hears,
        waited: Waited,
    ) -> None:
        super().__init__(rest)
        self._patience = pace.health.patience.total_seconds()
        self._health = health
        self._watch = watch
        self._hours = hours
        self._budget = budget
        self._clock = clock
        self._objection = objection
        self._tells = tells
        self._waited = waited
        self._asked_at = float("-inf")
        self._windows = 0
        self._told: tuple[str, Verdict] | None = None
        self._reading: Reading | None = None
        self._yielded: tuple[float, str] | None = None

    @property
    def slow(self) -> bool:
        return self._current() is not None

    def hold(self) -> StopReason | None:
        if (closed := self._hours.closed()) is not None:
            self._waited.ended_for = closed
            return StopReason.TIME_BUDGET
        if self._due():
            self._ask()
        return self._wait_out() if self._stopped() else None

    @contextmanager
    def window(self) -> Iterator[None]:
        self._windows += 1
        with self._watch.window():
            yield

    def cause(self, error: DBAPIError) -> str:
        who = self._watch.yielded_to
        if who is None or condition_of(error) is not Condition.TOO_SLOW:
            return sentence(error)
        told = f"yielded to {who}, who waited for us"
        self._yielded = (self._clock.monotonic() + _SLOW_AFTER_YIELDING_SECONDS, told)
        self._tell()
        return told

    def rest_after(self, worked_seconds: float, rested: float = 0.0) -> float:
        reading = self._current()
        if reading is None:
            return self._rest.after(worked_seconds, rested)
        seconds = self._rest.after(worked_seconds, rested, slowly=True)
        self._waited.seconds[reading.signal] += seconds + rested
        return seconds

    def _due(self) -> bool:
        age = self._age()
        if self._windows < _FRESH_WINDOWS:
            return age >= _FRESH_SECONDS
        return self._health.replicated or age >= _LEAST_SECONDS

    def _age(self) -> float:
        return self._clock.monotonic() - self._asked_at

    def _ask(self) -> None:
        """Look at a sample that is newer than the one we know."""
        self._reading = worst(self._health.readings(min(self._age(), _FRESH_SECONDS) / 2))
        self._asked_at, self._windows = self._clock.monotonic(), 0
        self._tell()

    def _stopped(self) -> bool:
        return self._reading is not None and self._reading.verdict is Verdict.STOP

    def _current(self) -> Reading | None:
        """Return what slows us down or stops us now; None when nothing does."""
        if self._yielded is not None and self._clock.monotonic() >= self._yielded[0]:
            self._yielded = None
        blocked = () if self._yielded is None else (self._yielded[1],)
        seen = () if self._reading is None else (self._reading,)
        return worst((*seen, *(Reading(BLOCKED, Verdict.SLOW, told) for told in blocked)))

    def _wait_out(self) -> StopReason | None:
        """Wait until no signal stops us. Raises LeaseLost from inside the wait."""
        begun = self._clock.monotonic()
        while (reading := self._reading) is not None and reading.verdict is Verdict.STOP:
            self._waited.reasons[reading.signal] = reading.reason
            if (reason := self._objection()) is not None:
                return reason
            waited = self._clock.monotonic() - begun
            if waited >= self._patience or self._budget.late or self._hours.closed():
                del self._waited.reasons[reading.signal]
                self._waited.ended_for = f"ended after {waited:.0f} s of waiting: {reading.reason}"
                return StopReason.THROTTLED
            self._tells.waiting(reading, waited)
            self._waited.seconds[reading.signal] += self._rest.pause(_STEP_SECONDS)
            self._ask()
        return None

    def _tell(self) -> None:
        """Tell once per change what slows us down or stops us, and that nothing does any more."""
        reading = self._current()
        told = None if reading is None else (reading.signal, reading.verdict)
        if told == self._told:
            return
        before, self._told = self._told, told
        if reading is None and before is not None:
            reading = Reading(before[0], Verdict.GO, "cleared")
        if reading is not None:
            self._tells.paced(reading)


@contextmanager
def throttled(
    policy: Policy,
    around: Surroundings,
    connection: Connection,
    tables: Iterable[int],
    hours: Hours,
    budget: Budget,
    objection: Callable[[], StopReason | None],
    tells: Hears,
    waited: Waited,
) -> Iterator[Throttle]:
    """Hold a run that works on `connection` and changes `tables`, for a block."""
    pace, clock = policy.pace, around.clock
    health = Health(pace.health, connection, around.redis, frozenset(tables))
    rest = Rest(pace.duty, clock, objection)
    patience = pace.health.yield_after
    with BlockWatch(policy.database_url, connection, patience, many_transactions=True) as watch:
        yield HealthThrottle(
            pace, health, watch, hours, budget, rest, clock, objection, tells, waited
        )
