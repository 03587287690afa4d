"""Plain values: whole numbers, shares, switches, names and SQL expressions.

They are stricter than pydantic's own: `true` is no number, `1.0` no count and "" no name.
"""

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated

from pydantic import BeforeValidator

LOWEST_SHARE = 0.01
_WHOLE = re.compile(r"[+-]?[0-9]{1,30}")
_SWITCHES = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}


def read_whole(value: object) -> int | None:
    """Return the whole number `value` says, None if it says none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
        return int(value)
    return None


def whole(low: int, high: int | None = None) -> BeforeValidator:
    """Return a check for a whole number from `low` to `high`; None is no upper bound."""
    expected = f"{low} or more" if high is None else f"from {low} to {high}"

    def check(value: object) -> int:
        number = read_whole(value)
        if number is None or number < low or (high is not None and number > high):
            raise ValueError(f"give a whole number {expected}")
        return number

    return BeforeValidator(check)


def share(low: float, high: float, example: str) -> BeforeValidator:
    """Return a check for a number from `low` to `high`."""

    def check(value: object) -> float:
        number = math.nan
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            with suppress(ValueError, OverflowError):
                number = float(value)
        if not low <= number <= high:  # false for nan too
            raise ValueError(f"give a number from {low:g} to {high:g}; {example}")
        return number

    return BeforeValidator(check)


def listed(value: object) -> object:
    """Return a list for what the environment gives: {"0": ..., "1": ...}."""
    if isinstance(value, Mapping) and value and all(str(key).isdecimal() for key in value):
        return [value[key] for key in sorted(value, key=int)]
    return value


def _table_share(value: object) -> float:
    share = math.nan
    text = value.strip() if isinstance(value, str) else value
    percent = isinstance(text, str) and text.endswith("%")
    if isinstance(text, str):
        text = text.removesuffix("%").strip()
    if isinstance(text, int | float | str) and not isinstance(text, bool):
        with suppress(ValueError, OverflowError):
            share = float(text) / (100 if percent else 1)
    if not LOWEST_SHARE <= share <= 1:  # false for nan too
        raise ValueError('give a share of the table from 0.01 to 1, such as 0.2 or "20 %"')
    return share


def _switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and (known := _SWITCHES.get(value.strip().lower())) is not None:
        return known
    raise ValueError("give true or false")


def read_name(value: object) -> str:
    """Return `value` if it can be a table's or column's name, quotes and blanks included.

    Raises ValueError when it is empty, no text, or text no database can hold.
    """
    if not isinstance(value, str) or not value:
        raise ValueError("give a name")
    return _storable(value)


def _expression(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("give an SQL expression as text; an empty one says nothing")
    return _storable(value)


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL byte, which PostgreSQL can't store")
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate: bytes in the environment that are not UTF-8
        raise ValueError("is not valid UTF-8") from None
    return text


Share = Annotated[float, share(LOWEST_SHARE, 1, "0.5 works half of the time")]
TableShare = Annotated[float, BeforeValidator(_table_share)]
Switch = Annotated[bool, BeforeValidator(_switch)]
Name = Annotated[str, BeforeValidator(read_name)]
Expression = Annotated[str, BeforeValidator(_expression)]
