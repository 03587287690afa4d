"""Sizes as PostgreSQL writes them: `256MB`, `20GB`, `1.5TB`, or a bare number of bytes."""

import re
from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

_UNITS = {"": 1, "b": 1, "kb": 2**10, "mb": 2**20, "gb": 2**30, "tb": 2**40}
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([kmgt]?b|)", re.IGNORECASE)
_LARGEST = 2**60  # an exabyte; beyond it a typo is likelier than a wish


def parse_size(value: object) -> int:
    """Return the bytes `value` says; 1kB is 1024 of them, as in postgresql.conf.

    Raises ValueError for what is no size above zero; it says what to give.
    """
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    match = _SIZE.fullmatch(text.strip()) if isinstance(text, str) else None
    size = int(Decimal(match[1]) * _UNITS[match[2].lower()]) if match else 0
    if not 0 < size <= _LARGEST:
        raise ValueError('give a size above zero such as "256MB" or "20GB"; 1kB is 1024 bytes')
    return size


def format_size(size: int) -> str:
    """Return a size as `parse_size` reads it; exact."""
    for unit in ("TB", "GB", "MB", "kB"):
        if size % _UNITS[unit.lower()] == 0:
            return f"{size // _UNITS[unit.lower()]}{unit}"
    return f"{size}B"


Size = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(format_size, return_type=str, when_used="json-unless-none"),
]
