"""Text of databases with the encoding SQL_ASCII: bytes that PostgreSQL neither checks nor converts.

psycopg2 takes them for ASCII and fails on the first byte that is none, be it in a value or a name.
Here they are UTF-8 where they can be; any other byte becomes a lone surrogate (PEP 383), which is
written as that byte again: what is read and written comes back to the byte.
"""

import codecs
from typing import Any

from psycopg2 import extensions

_CODEC = "hk_sql_ascii"
_ERRORS = "surrogateescape"


def install() -> None:
    """Have psycopg2 read and write such text without losing a byte; other encodings stay as they are."""
    codecs.register(_find)
    for name in ("SQL_ASCII", "SQLASCII"):
        extensions.encodings[name] = _CODEC


def _find(name: str) -> codecs.CodecInfo | None:
    return codecs.CodecInfo(_encode, _decode, name=_CODEC) if name == _CODEC else None


def _encode(text: str, _errors: str = _ERRORS) -> tuple[bytes, int]:
    return codecs.utf_8_encode(text, _ERRORS)


def _decode(raw: Any, _errors: str = _ERRORS) -> tuple[str, int]:
    return codecs.utf_8_decode(raw, _ERRORS, True)
