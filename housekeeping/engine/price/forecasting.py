"""The windows a run will take, forecast by letting their sizes grow as they would."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from housekeeping.engine.pacing import LONGEST_REST_SECONDS
from housekeeping.engine.sizing import WindowSize
from housekeeping.policies.pace import Pace

WINDOW_SECONDS = 4e-3  # guards, fence, the ledger's row, commit: 2 to 6 ms where measured
_MOST_WINDOWS = 2_000  # then the rest is as the last one: sizes have long settled


@dataclass(frozen=True)
class Stretch:
    """A part of a walk that is alike all over."""

    units: float
    """heap blocks or index entries"""
    seconds: float
    """each unit takes"""
    rows: float
    """of all tables, each unit removes"""

    @classmethod
    def over(cls, units: float, seconds: float, rows: float) -> "Stretch":
        """Spread what a stretch takes as a whole over its units."""
        units = max(units, 0.0)
        return cls(units, seconds / units, rows / units) if units else cls(0.0, 0.0, 0.0)

    def slowed(self, factor: float) -> "Stretch":
        """Return the same stretch on a server so much slower."""
        return replace(self, seconds=self.seconds * factor)


@dataclass(frozen=True)
class Forecast:
    worked_seconds: float
    rest_seconds: float
    batches: int


def forecast(
    stretches: Sequence[Stretch],
    rows_per_unit: float,
    pace: Pace,
    size: int,
    ceiling: int | None = None,
) -> Forecast:
    """Return what the windows over the stretches will take.

    `size`: of the first window, in units. `ceiling`: units whose child rows fit one transaction.
    """
    target = pace.batch_target.total_seconds()
    limits = {} if ceiling is None else {"ceiling": ceiling}
    sizes = WindowSize(max(1, size), target, rows_per_unit, **limits)
    worked = rests = 0.0
    batches = 0
    for stretch in stretches:
        left = stretch.units
        while left > 0:
            units = min(float(sizes.current), left)
            times = 1.0 if batches < _MOST_WINDOWS else max(1.0, left / units)
            seconds = WINDOW_SECONDS + units * stretch.seconds
            worked += times * seconds
            rests += times * min(seconds * (1 / pace.duty - 1), LONGEST_REST_SECONDS)
            batches += round(times)
            left -= times * units
            rows = round(units * stretch.rows)
            sizes.took(round(units), seconds, rows, overhead=WINDOW_SECONDS)
            if left < 1:
                break
    return Forecast(worked, rests, batches)
