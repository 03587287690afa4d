"""Schedules as text, and back: the five fields of crontab(5).

Celery's `crontab.from_string` reads them, but forgives too much for something typed by hand: it
takes "1-5-7" for "1-5", and "mon" as an hour for one o'clock.
"""

import re
from collections.abc import Iterable

from celery.schedules import BaseSchedule, ParseException, crontab, schedule

ACCEPTED = """\
Five fields are accepted: minute (0-59), hour (0-23), day of the month (1-31), month (1-12 or \
jan-dec), day of the week (0-6 or sun-sat, 0 is Sunday). Each is *, a number, a range (1-5), \
a step (*/15, 8-18/2) or several of these (1,15,20-22), for example "15 2 * * *"."""

_FIELDS = ("minute", "hour", "day of the month", "month", "day of the week")
_NAMED = {"month", "day of the week"}
_NUMBER, _NUMBER_OR_NAME = r"\d{1,2}", r"(?:\d{1,2}|[a-z]{3})"


def parse(text: str) -> crontab:
    """Return the schedule that five fields describe.

    Raises ValueError, which says what field is wrong and what is accepted.
    """
    fields = text.lower().split()
    if len(fields) != len(_FIELDS):
        raise ValueError(
            f"{text!r} is not a cron schedule: it has {len(fields)} fields. {ACCEPTED}"
        )
    for name, field in zip(_FIELDS, fields, strict=True):
        _check(text, name, field)
    try:
        return crontab.from_string(" ".join(fields))
    except (ValueError, ParseException) as error:  # a day that no month has
        raise ValueError(
            f"{text!r} is not a cron schedule: {str(error).rstrip('.')}. {ACCEPTED}"
        ) from error


def describe(when: BaseSchedule) -> str:
    """Return a schedule as people write it: cron fields, "every 30s", or Celery's own words."""
    if isinstance(when, crontab):
        fields = (
            when._orig_minute,  # noqa: SLF001  # as it was written; public are only the numbers
            when._orig_hour,  # noqa: SLF001
            when._orig_day_of_month,  # noqa: SLF001
            when._orig_month_of_year,  # noqa: SLF001
            when._orig_day_of_week,  # noqa: SLF001
        )
        return " ".join(_field(field) for field in fields)
    if isinstance(when, schedule):
        return f"every {_duration(when.seconds)}"
    return str(when)


def _check(text: str, name: str, field: str) -> None:
    """Try one field alone, so that the error can name it."""
    value = _NUMBER_OR_NAME if name in _NAMED else _NUMBER
    part = rf"(?:\*|{value}-{value})(?:/\d{{1,2}})?|{value}"
    try:
        if not re.fullmatch(rf"(?:{part})(?:,(?:{part}))*", field):
            raise ValueError("not understood")
        crontab.from_string(" ".join(field if each == name else "*" for each in _FIELDS))
    except (ValueError, ParseException) as error:
        raise ValueError(
            f"{text!r} is not a cron schedule: {field!r} as {name}: {str(error).rstrip('.')}. {ACCEPTED}"
        ) from error


def _duration(seconds: float) -> str:
    """Return seconds as our settings accept them, in the largest unit that leaves no rest."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"


def _field(field: object) -> str:
    if isinstance(field, str) or not isinstance(field, Iterable):
        return str(field)
    return ",".join(str(each) for each in field)
