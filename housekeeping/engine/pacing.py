"""When a run leaves early, and how it rests: budgets, the duty ratio, the operator's flags."""

import time
from collections.abc import Callable
from typing import Protocol

from housekeeping.policies.pace import Pace
from housekeeping.policies.result import StopReason
from housekeeping.stores.postgres.slicing import SmallRests

_STEP_SECONDS = 0.25  # how soon a flag is honoured inside a rest
LONGEST_REST_SECONDS = 5.0
_SLOWER = 4.0  # of half the time worked, a fifth is left


class Clock(Protocol):
    """Monotonic time, and a way to let it pass."""

    def monotonic(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's own."""

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class Budget:
    """The time and rows a run may take."""

    def __init__(self, pace: Pace, limit: int | None, clock: Clock) -> None:
        self._clock = clock
        self._deadline = clock.monotonic() + pace.time_budget.total_seconds()
        given = [rows for rows in (pace.row_budget, limit) if rows is not None]
        self._rows = min(given) if given else None

    def rows_left(self, done: int) -> int | None:
        """Return how many rows may still go; None is no limit."""
        return None if self._rows is None else max(0, self._rows - done)

    @property
    def late(self) -> bool:
        """Whether the time is over."""
        return self._clock.monotonic() >= self._deadline

    def spent(self, done: int) -> StopReason | None:
        """Return the budget that is used up, or None."""
        if self.rows_left(done) == 0:
            return StopReason.ROW_BUDGET
        if self.late:
            return StopReason.TIME_BUDGET
        return None


class Rest:
    """Rests between windows so that the run works only its share of the time."""

    def __init__(
        self, duty: float, clock: Clock, objection: Callable[[], StopReason | None]
    ) -> None:
        self._share = 1 / duty - 1
        self._clock = clock
        self._objection = objection

    def after(self, worked_seconds: float, rested: float = 0.0, *, slowly: bool = False) -> float:
        """Rest for what a window's work has earned; return the seconds it took.

        `rested`: seconds of it that were taken already. `slowly`: several times as long, also where
        the duty ratio asks for no rest. Ends early when somebody objects to the run: the caller asks
        again before its next window.
        """
        earned = worked_seconds * self._earned(slowly=slowly) - rested
        return self.pause(min(max(0.0, earned), LONGEST_REST_SECONDS))

    def within(self, target_seconds: float, *, slowly: bool = False) -> SmallRests | None:
        """Return how to rest inside a transaction, until it has taken its target time; None where the
        run never rests.
        """
        share = self._earned(slowly=slowly)
        return SmallRests(share, target_seconds) if share else None

    def _earned(self, *, slowly: bool) -> float:
        """Return how many seconds of rest a second of work earns."""
        return max(self._share, 1.0) * _SLOWER if slowly else self._share

    def pause(self, seconds: float) -> float:
        """Let time pass, in steps short enough to hear an objection."""
        begun = self._clock.monotonic()
        end = begun + seconds
        while (left := end - self._clock.monotonic()) > 0:
            self._clock.sleep(min(left, _STEP_SECONDS))
            if left > _STEP_SECONDS and self._objection() is not None:
                break
        return self._clock.monotonic() - begun
