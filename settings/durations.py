"""Durations as users write them: `30d`, `1d12h`, `200ms`, `P30D`, or a bare number of seconds."""

import math
import re
from datetime import timedelta
from decimal import Decimal
from typing import Annotated

from pydantic import (
    AfterValidator,
    BeforeValidator,
    PlainSerializer,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

LONGEST = timedelta(days=36_500)  # a century; beyond it a typo is likelier than a wish
EXPECTED = 'give a number and a unit such as "30d", "12h", "200ms", or ISO 8601 such as "P30D"'

_SECONDS = {
    "w": Decimal(604_800),
    "d": Decimal(86_400),
    "h": Decimal(3_600),
    "m": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("0.001"),
}
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_UNITS = re.compile("".join(rf"(?:(?P<{unit}>{_NUMBER})\s*{unit}\s*)?" for unit in _SECONDS))
_ISO = re.compile(
    rf"P(?:(?P<w>{_NUMBER})W)?(?:(?P<d>{_NUMBER})D)?"
    rf"(?:T(?=[0-9])(?:(?P<h>{_NUMBER})H)?(?:(?P<m>{_NUMBER})M)?(?:(?P<s>{_NUMBER})S)?)?"
)
_ISO_WITH_YEARS_OR_MONTHS = re.compile(r"P[0-9.WD]*[0-9][YM].*")  # M after a T is minutes


class BareSeconds(timedelta):
    """A duration written as a bare number: seconds by contract, and days by mistake."""


def parse_duration(value: object) -> timedelta:
    """Return the duration `value` says; a bare number is seconds.

    Units are w, d, h, m, s and ms, largest first and each at most once (`1d12h`). ISO 8601 is
    accepted without years and months, whose length depends on the calendar.

    Raises ValueError for what is no duration, negative or over 36,500 days; it says what to give.
    """
    match value:
        case timedelta():
            return _within_a_century(Decimal(value // timedelta(microseconds=1)) / 1_000_000)
        case str():
            return _within_a_century(_seconds_in(value.strip()))
        case int() if not isinstance(value, bool):
            return _within_a_century(Decimal(value))
        case float() if math.isfinite(value):
            return _within_a_century(Decimal(repr(value)))
    raise ValueError(EXPECTED)


def format_duration(value: timedelta) -> str:
    """Return `value` as `parse_duration` reads it, such as `1d12h`; exact to the microsecond."""
    seconds, micros = divmod(value // timedelta(microseconds=1), 1_000_000)
    parts = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, length)
        if count:
            parts.append(f"{count}{unit}")
    if micros:
        parts.append(f"{Decimal(micros) / 1_000:f}ms")
    return "".join(parts) or "0s"


def between(shortest: timedelta, longest: timedelta = LONGEST) -> AfterValidator:
    """Return a check that a duration is neither shorter nor longer than these."""

    def check(value: timedelta) -> timedelta:
        if not shortest <= value <= longest:
            low, high = format_duration(shortest), format_duration(longest)
            raise ValueError(f"give a duration from {low} to {high}")
        return value

    return AfterValidator(check)


def _above_zero(value: timedelta) -> timedelta:
    if not value:
        raise ValueError("zero would let everything expire at once; give a duration above zero")
    return value


def _as_written(value: object, handler: ValidatorFunctionWrapHandler) -> timedelta:
    kept: timedelta = handler(value)
    bare = isinstance(value, int | float) or (
        isinstance(value, str) and re.fullmatch(_NUMBER, value.strip())
    )
    return BareSeconds(kept.days, kept.seconds, kept.microseconds) if bare else kept


def _seconds_in(text: str) -> Decimal:
    if text[:1] in "-\N{MINUS SIGN}" and text:
        raise ValueError("a duration can't be negative; give one above zero")
    if re.fullmatch(_NUMBER, text):
        return Decimal(text)
    if _ISO_WITH_YEARS_OR_MONTHS.fullmatch(text):
        raise ValueError(
            "years and months have no fixed length; give days, such as "
            '"P365D" for a year or "P30D" for a month'
        )
    match = _UNITS.fullmatch(text) or _ISO.fullmatch(text)
    counts = {unit: count for unit, count in match.groupdict().items() if count} if match else {}
    if not counts:
        raise ValueError(EXPECTED)
    return sum((Decimal(count) * _SECONDS[unit] for unit, count in counts.items()), Decimal(0))


def _within_a_century(seconds: Decimal) -> timedelta:
    if seconds < 0:
        raise ValueError("a duration can't be negative; give one above zero")
    if seconds > Decimal(LONGEST.days) * 86_400:
        raise ValueError(f"over {LONGEST.days:,} days; give a shorter duration")
    return timedelta(microseconds=int((seconds * 1_000_000).to_integral_value()))


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
]
"""Zero allowed."""

KeepFor = Annotated[Duration, AfterValidator(_above_zero), WrapValidator(_as_written)]
"""How long a row is kept: above zero, at most 36,500 days. Remembers a bare number as one."""
