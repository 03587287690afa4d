"""Rows as JSON lines: an object a row, its keys the columns.

Integers and booleans are JSON's own; every other value is PostgreSQL's text of it, as a string.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import BinaryIO

from housekeeping.stores.files.row_text import Row

_BATCH_ROWS = 1_000
_KINDS: dict[str, Callable[[str], object]] = {
    "int2": int,
    "int4": int,
    "int8": int,
    "bool": lambda text: text == "t",
}


class JsonLinesWriter:
    def __init__(self, sink: BinaryIO, names: Sequence[str], types: Sequence[str]) -> None:
        self._sink = sink
        self._columns = tuple(
            (name, _KINDS.get(type_, str)) for name, type_ in zip(names, types, strict=True)
        )

    def write(self, rows: Iterable[Row]) -> None:
        self._sink.write(b"".join(self._line(row) for row in rows))

    def close(self) -> None:
        """Nothing is held back."""

    def _line(self, row: Row) -> bytes:
        values = {
            name: None if value is None else read(value)
            for (name, read), value in zip(self._columns, row, strict=True)
        }
        line = json.dumps(values, ensure_ascii=False, separators=(",", ":")) + "\n"
        return line.encode(errors="backslashreplace")  # a lone surrogate as JSON's own \udcff


def jsonl_batches(source: BinaryIO, names: Sequence[str]) -> Iterator[list[Row]]:
    """Yield rows as they were written, some at a time.

    Raises ValueError for what no JsonLinesWriter wrote for these columns.
    """
    lines = iter(source)
    while batch := [_row(line, names) for line in islice(lines, _BATCH_ROWS)]:
        yield batch


def _row(line: bytes, names: Sequence[str]) -> Row:
    values = json.loads(line)
    if not isinstance(values, dict) or list(values) != list(names):
        raise ValueError("a line of it has other columns than its manifest names")
    return tuple(_text(value) for value in values.values())


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, int):
        return str(value)
    raise ValueError("it holds a value that is neither text, integer, true, false nor null")
