"""Rows written are rows read, whatever is in them; and their checksum is COPY's."""

import hashlib
import io
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from housekeeping.stores.files.csv_rows import csv_batches
from housekeeping.stores.files.formats import row_batches, row_writer
from housekeeping.stores.files.row_text import Row, RowSum, line_of

FORMATS = [
    ("csv", "gzip"),
    ("csv", "none"),
    ("jsonl", "gzip"),
    ("parquet", "zstd"),
    ("parquet", "snappy"),
]
EVERY_FORMAT = pytest.mark.parametrize(("format_", "compression"), FORMATS)
NAMES = ("id", "text", "yes", "raw")
TYPES = ("int8", "text", "bool", "bytea")
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
ROWS = st.lists(
    st.tuples(
        st.none() | st.integers(-(2**63), 2**63 - 1).map(str),
        st.none() | TEXT,
        st.none() | st.sampled_from(["t", "f"]),
        st.none() | st.binary().map(lambda raw: f"\\x{raw.hex()}"),
    ),
    max_size=30,
)


def through(
    rows: Sequence[Row], format_: str, compression: str, names: Any = NAMES, types: Any = TYPES
) -> list[Row]:
    sink = io.BytesIO()
    with row_writer(format_, compression, sink, names, types) as writer:
        writer.write(rows[:7])
        writer.write(rows[7:])
    source = io.BytesIO(sink.getvalue())
    return [row for batch in row_batches(format_, compression, source, names) for row in batch]


@EVERY_FORMAT
@given(rows=ROWS)
@settings(max_examples=60, deadline=None)
def test_any_rows_come_back_as_they_were(rows: list[Row], format_: str, compression: str) -> None:
    assert through(rows, format_, compression) == rows


@given(raw=st.lists(st.binary().map(lambda raw: raw.replace(b"\0", b"")), max_size=9))
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize(("format_", "compression"), FORMATS[:3])
def test_bytes_that_are_no_text_come_back_and_are_summed_up_as_they_are(
    raw: list[bytes], format_: str, compression: str
) -> None:
    rows: list[Row] = [(each.decode(errors="surrogateescape"),) for each in raw]

    back = through(rows, format_, compression, ("a",), ("text",))

    assert [str(value).encode(errors="surrogateescape") for (value,) in back] == raw
    assert line_of(("\udcff\n",)) == b"\xff\\n\n"


@EVERY_FORMAT
def test_null_is_not_the_empty_string_even_alone_on_a_line(format_: str, compression: str) -> None:
    rows: list[Row] = [(None,), ("",), ("\n",), ('"',), (",",), ("\r",), ('""\n""',)]
    assert through(rows, format_, compression, ("a",), ("text",)) == rows


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'"b"\n"1"\n',
        b'"a"\n"1',
        b'"a"\n"1"x\n',
        b'"a"\n1\n',
        b'"a"\n"1","2"\n',
        b'"a"\n"1""\n',
    ],
)
def test_csv_that_is_not_ours_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError):
        list(csv_batches(io.BytesIO(content), ("a",)))


@pytest.mark.parametrize(
    "content", [b"[]\n", b'{"b": 1}\n', b'{"a": 1.5}\n', b'{"a": []}\n', b"{\n", b'{"a":1,"b":2}\n']
)
def test_json_lines_that_are_not_ours_are_refused(content: bytes) -> None:
    with pytest.raises(ValueError):
        list(row_batches("jsonl", "none", io.BytesIO(content), ("a",)))


def test_a_line_is_what_copy_writes() -> None:
    assert line_of((None, "", "a\tb\\c\nd\re\b\f\v", "ü")) == (
        "\\N\t\ta\\tb\\\\c\\nd\\re\\b\\f\\v\tü\n".encode()
    )


def test_the_sum_does_not_depend_on_the_order_but_on_every_row() -> None:
    rows: list[Row] = [("1", None), ("2", ""), ("2", "")]
    sums = []
    for order in (rows, rows[::-1], rows[:2], [*rows, ("2", None)], [("1", ""), *rows[1:]]):
        total = RowSum()
        total.add(order)
        sums.append(total.sha256)
    assert sums[0] == sums[1]
    assert len(set(sums)) == 4
    expected = sum(int(hashlib.sha256(line_of(row)).hexdigest(), 16) for row in rows) % 2**256
    assert sums[0] == f"{expected:064x}"


def test_sought_keys_are_missed_until_they_were_seen() -> None:
    total = RowSum([("1",), ("9",)], [1])
    total.add([("a", "1"), ("b", "2")])
    assert total.missing == {("9",)}
