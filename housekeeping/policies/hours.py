"""Maintenance windows: the hours in which a policy may work, such as `22:00-04:00`."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
from functools import cached_property
from zoneinfo import ZoneInfo

_DAY = timedelta(days=1)
_MINUTE = timedelta(minutes=1)
_LOOK_AHEAD = timedelta(days=8)


@dataclass(frozen=True)
class Opening:
    """From one time of day to another, on the wall clock.

    An end that is not after the start lies on the next day; both the same is a whole day.
    """

    start: time
    end: time
    days: frozenset[int] = frozenset(range(7))
    """on which it starts, Monday is 0"""

    def holds(self, wall: datetime) -> bool:
        """Say whether a moment of the wall clock lies in it; its end does not."""
        at, today = wall.time(), wall.weekday()
        yesterday = (wall - _DAY).weekday()
        if self.start < self.end:
            return today in self.days and self.start <= at < self.end
        return (today in self.days and at >= self.start) or (
            yesterday in self.days and at < self.end
        )


@dataclass(frozen=True)
class MaintenanceHours:
    """When a policy may work. Told by the wall clock, as people plan their nights.

    On the day clocks go forward an opening is as much shorter as the hour that is left out, and on
    the day they go back as much longer as the hour that comes twice.
    """

    openings: tuple[Opening, ...]
    time_zone: str = "UTC"
    told: str = ""
    """as the user wrote them"""

    def open_at(self, moment: datetime) -> bool:
        """Say whether work may go on at a moment."""
        wall = moment.astimezone(self._zone).replace(tzinfo=None)
        return any(opening.holds(wall) for opening in self.openings)

    def next_opening(self, moment: datetime) -> datetime | None:
        """Return the first full minute from a moment on in which work may begin.

        Minute by minute: 12,000 of them take 20 ms, and no calendar is too odd for it.
        """
        return next((minute for minute in _minutes(moment) if self.open_at(minute)), None)

    def opens(self, moment: datetime) -> str:
        """Tell, closed at a moment, when work may begin."""
        opening = self.next_opening(moment)
        if opening is None:
            return f"{self} never opens"
        there = opening.astimezone(self._zone)
        return f"outside of {self}; it opens at {there:%Y-%m-%d %H:%M %z}"

    @cached_property
    def _zone(self) -> tzinfo:
        return UTC if self.time_zone == "UTC" else ZoneInfo(self.time_zone)

    def __str__(self) -> str:
        return f"only_between {self.told} ({self.time_zone})"


def _minutes(moment: datetime) -> Iterator[datetime]:
    at = moment.astimezone(UTC).replace(second=0, microsecond=0)
    end = at + _LOOK_AHEAD
    while at < end:
        if at >= moment:
            yield at
        at += _MINUTE
