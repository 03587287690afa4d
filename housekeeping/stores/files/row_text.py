"""Rows as PostgreSQL writes them, and a checksum of many of them in any order.

A row is a tuple of its values' text, None for NULL. Its line is what `COPY ... TO STDOUT` writes for
it, so that the checksum of an export can be checked against a table with psql alone:

    rows_sha256 = sum of sha256(line) over all rows, modulo 2^256, in hexadecimal

A byte that is no UTF-8, as a database with the encoding SQL_ASCII may hold, is a lone surrogate in the
text of a value (stores/postgres/raw_text.py) and that byte again in its line.
"""

import hashlib
from collections.abc import Iterable, Sequence

Row = tuple[str | None, ...]
BYTES_AS_THEY_ARE = "surrogateescape"

_ESCAPES = str.maketrans(
    {
        "\\": "\\\\",
        "\b": "\\b",
        "\t": "\\t",
        "\n": "\\n",
        "\v": "\\v",
        "\f": "\\f",
        "\r": "\\r",
    }
)
_MODULUS = 1 << 256


def line_of(row: Row) -> bytes:
    """Return a row as a line of COPY's text format, with its line feed."""
    fields = ["\\N" if value is None else value.translate(_ESCAPES) for value in row]
    return ("\t".join(fields) + "\n").encode(errors=BYTES_AS_THEY_ARE)


def bytes_in(rows: Iterable[Row]) -> int:
    """Return about how much memory the values of rows take."""
    return sum(len(value) for row in rows for value in row if value is not None)


class RowSum:
    """Counts rows and sums their checksums up; looks out for two keys on the way."""

    def __init__(self, sought: Iterable[Row] = (), key_places: Sequence[int] = ()) -> None:
        """`sought`: keys that should be among the rows; `key_places`: where a row has its key."""
        self.rows = 0
        self._sum = 0
        self._places = tuple(key_places)
        self.missing = set(sought)

    def add(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self.rows += 1
            self._sum += int.from_bytes(hashlib.sha256(line_of(row)).digest(), "big")
            if self.missing:
                self.missing.discard(tuple(row[place] for place in self._places))
        self._sum %= _MODULUS

    @property
    def sha256(self) -> str:
        return f"{self._sum:064x}"
