"""Sizes as users write them: `256MB`, `2 GB`, or a bare number of bytes."""

import re
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

from settings.values import read_whole

_UNITS = {"B": 1, "kB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40}
_SIZE = re.compile(r"(?P<count>[0-9]{1,6}(?:\.[0-9]{1,3})?)\s*(?P<unit>[kKMGT]?B)")
EXPECTED = 'give a size such as "256MB" or "2TB", in powers of 1024 as PostgreSQL counts'


def parse_size(value: object) -> int:
    """Return how many bytes `value` says. Raises ValueError for what is no size, or zero."""
    size = read_whole(value)
    if size is None and isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        size = int(float(match["count"]) * _UNITS[match["unit"].replace("K", "k")])
    if size is None or size <= 0:
        raise ValueError(EXPECTED)
    return size


def format_size(size: int) -> str:
    """Return a size as `parse_size` reads it; exact."""
    for unit in ("TB", "GB", "MB", "kB"):
        if size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return f"{size}B"


Size = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(format_size, return_type=str, when_used="json-unless-none"),
]
