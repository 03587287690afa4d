"""Maintenance windows and time zones as users write them."""

import re
from collections.abc import Iterator
from datetime import time
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, PlainSerializer

from housekeeping.policies.hours import MaintenanceHours, Opening

_EXPECTED = (
    'give hours such as "01:00-05:00", "22:00-04:00" for a night, or '
    '"mon-fri 01:00-05:00, sat-sun 00:00-24:00"'
)
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = "|".join(_DAYS)
_TIME = "([01]?[0-9]|2[0-4]):([0-5][0-9])"
_OPENING = re.compile(rf"(?:({_DAY})(?:\s*-\s*({_DAY}))?\s+)?{_TIME}\s*-\s*{_TIME}")
_MIDNIGHT = 24


def parse_hours(value: object) -> MaintenanceHours:
    """Return the hours `value` says, in UTC until a time zone is given.

    Raises ValueError for what says none; it says what to give.
    """
    if isinstance(value, MaintenanceHours):
        return value
    text = value if isinstance(value, str) else ""
    openings = tuple(_opening(part.strip()) for part in text.lower().split(","))
    return MaintenanceHours(openings, told=" ".join(text.split()))


def _opening(text: str) -> Opening:
    match = _OPENING.fullmatch(text)
    if match is None:
        raise ValueError(_EXPECTED)
    first, last, *clock = match.groups()
    start, end = ((int(clock[at]), int(clock[at + 1])) for at in (0, 2))
    if start == end:
        raise ValueError("begins when it ends; give 00:00-24:00 for the whole day")
    if start[0] == _MIDNIGHT or (end[0] == _MIDNIGHT and end[1]):
        raise ValueError(_EXPECTED)
    days = frozenset(range(7)) if first is None else frozenset(_from_to(first, last or first))
    return Opening(time(*start), time(end[0] % _MIDNIGHT, end[1]), days)


def _from_to(first: str, last: str) -> Iterator[int]:
    day = _DAYS.index(first)
    yield day
    while _DAYS[day] != last:
        day = (day + 1) % len(_DAYS)
        yield day


def _time_zone(value: object) -> str:
    if value == "UTC":  # no need for a time zone database
        return "UTC"
    try:
        if isinstance(value, str) and value:
            return ZoneInfo(value).key
    except (ValueError, OSError, KeyError):  # odd names end up as odd paths in there
        pass
    raise ValueError('give an IANA time zone such as "UTC" or "Europe/Berlin"')


Hours = Annotated[
    MaintenanceHours,
    BeforeValidator(parse_hours),
    PlainSerializer(lambda hours: hours.told, return_type=str),
]
TimeZone = Annotated[str, BeforeValidator(_time_zone)]
