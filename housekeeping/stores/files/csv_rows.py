"""Rows as CSV that PostgreSQL reads back itself: `COPY table FROM ... (FORMAT csv, HEADER)`.

Every value is quoted and NULL is not, so that NULL and the empty string stay apart. Python's own csv
module can't tell the two apart when it reads.
"""

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import BinaryIO

from housekeeping.stores.files.row_text import BYTES_AS_THEY_ARE, Row

_FIELD = re.compile(r'(?:"([^"]*(?:""[^"]*)*)")?([,\n])')
_BATCH_ROWS = 1_000


class CsvWriter:
    def __init__(self, sink: BinaryIO, names: Sequence[str]) -> None:
        self._sink = sink
        sink.write(_line(names))

    def write(self, rows: Iterable[Row]) -> None:
        self._sink.write(b"".join(_line(row) for row in rows))

    def close(self) -> None:
        """Nothing is held back."""


def csv_batches(source: BinaryIO, names: Sequence[str]) -> Iterator[list[Row]]:
    """Yield rows as they were written, some at a time.

    Raises ValueError for what no CsvWriter wrote for these columns.
    """
    # Not detached: it would be closed with the text around it, which is what we want.
    text = io.TextIOWrapper(source, encoding="utf-8", errors=BYTES_AS_THEY_ARE, newline="\n")
    records = _records(text)
    if next(records, None) != tuple(names):
        raise ValueError("its header does not name the columns its manifest does")
    while batch := list(islice(records, _BATCH_ROWS)):
        if any(len(row) != len(names) for row in batch):
            raise ValueError("a line of it has another number of values than its header")
        yield batch


def _line(row: Sequence[str | None]) -> bytes:
    fields = ("" if value is None else '"' + value.replace('"', '""') + '"' for value in row)
    return (",".join(fields) + "\n").encode(errors=BYTES_AS_THEY_ARE)


def _records(lines: Iterable[str]) -> Iterator[Row]:
    """Put lines together to records: a line feed inside quotes belongs to its value."""
    held: list[str] = []
    inside = False
    for line in lines:
        held.append(line)
        inside ^= bool(line.count('"') & 1)
        if not inside:
            yield _fields("".join(held))
            held.clear()
    if held:
        raise ValueError("it ends inside a value")


def _fields(record: str) -> Row:
    values: list[str | None] = []
    at = 0
    while at < len(record):
        field = _FIELD.match(record, at)
        if field is None or (field[2] == "\n" and field.end() != len(record)):
            raise ValueError("a line of it is no CSV as PostgreSQL writes it")
        values.append(None if field[1] is None else field[1].replace('""', '"'))
        at = field.end()
    return tuple(values)
