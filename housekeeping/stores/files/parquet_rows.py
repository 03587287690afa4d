"""Rows as Parquet: integers, booleans and bytes as its own, every other value as PostgreSQL's text.

Its text is UTF-8 and nothing else: a row that holds another byte is refused.
The PostgreSQL type of each column is in the field's metadata under `postgresql`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, BinaryIO

from housekeeping.stores.files.row_text import Row, bytes_in

_GROUP_BYTES = 16 << 20  # of text, some 100 MB as Python sees it; readers skip whole row groups
_BATCH_ROWS = 1_000
_FROM_TEXT: dict[str, Callable[[str], object]] = {
    "int2": int,
    "int4": int,
    "int8": int,
    "bool": lambda text: text == "t",
    "bytea": lambda text: bytes.fromhex(text[2:]),
}


def installed() -> bool:
    """Whether Parquet can be written and read here; it takes the extra `parquet`."""
    try:
        # 60 MB that only exports to Parquet need.
        import pyarrow.parquet  # type: ignore[import-untyped] # noqa: F401, PLC0415
    except ImportError:
        return False
    return True


class ParquetWriter:
    """Collects rows to row groups; holds one of them in memory."""

    def __init__(
        self, sink: BinaryIO, names: Sequence[str], types: Sequence[str], compression: str
    ) -> None:
        import pyarrow as pa  # noqa: PLC0415
        import pyarrow.parquet as pq  # noqa: PLC0415

        native = {"int2": pa.int16(), "int4": pa.int32(), "int8": pa.int64(), "bool": pa.bool_()}
        native["bytea"] = pa.binary()
        self._types = tuple(types)
        self._schema = pa.schema(
            [
                pa.field(name, native.get(type_, pa.string()), metadata={"postgresql": type_})
                for name, type_ in zip(names, types, strict=True)
            ]
        )
        self._table: Callable[..., Any] = pa.Table.from_arrays
        self._array: Callable[..., Any] = pa.array
        self._writer = pq.ParquetWriter(sink, self._schema, compression=compression)
        self._held: list[Row] = []
        self._bytes = 0

    def write(self, rows: Sequence[Row]) -> None:
        self._held += rows
        self._bytes += bytes_in(rows)
        if self._bytes >= _GROUP_BYTES:
            self._write_group()

    def close(self) -> None:
        if self._held:
            self._write_group()
        self._writer.close()

    def let_go(self) -> None:
        """End the library's writer while the file is open: collected later it would complain to stderr
        that it can't write any more, which is so wherever an export was cut short.
        """
        with suppress(Exception):
            self._writer.close()

    def _write_group(self) -> None:
        columns = []
        for place, field in enumerate(self._schema):
            read = _FROM_TEXT.get(self._types[place], str)
            texts = [row[place] for row in self._held]
            values = [None if text is None else read(text) for text in texts]
            columns.append(self._array(values, type=field.type))
        self._writer.write_table(self._table(columns, schema=self._schema))
        self._held, self._bytes = [], 0


def parquet_batches(source: BinaryIO, names: Sequence[str]) -> Iterator[list[Row]]:
    """Yield rows as they were written, some at a time.

    Raises ValueError for what no ParquetWriter wrote for these columns.
    """
    import pyarrow.parquet as pq  # noqa: PLC0415

    file = pq.ParquetFile(source)
    if file.schema_arrow.names != list(names):
        raise ValueError("it has other columns than its manifest names")
    for batch in file.iter_batches(batch_size=_BATCH_ROWS):
        columns = [[_text(value) for value in column.to_pylist()] for column in batch.columns]
        # Without columns nothing says how many rows there are but the batch.
        yield list(zip(*columns, strict=True)) if columns else [()] * batch.num_rows


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"
    if isinstance(value, int):
        return str(value)
    raise ValueError("it holds a value of a type no export has")
