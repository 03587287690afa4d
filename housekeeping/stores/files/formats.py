"""A writer and a reader of rows for each format an export may have."""

import gzip
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO, Protocol, cast

from housekeeping.policies.errors import ExportPlaceRefused
from housekeeping.stores.files import parquet_rows
from housekeeping.stores.files.csv_rows import CsvWriter, csv_batches
from housekeeping.stores.files.jsonl_rows import JsonLinesWriter, jsonl_batches
from housekeeping.stores.files.parquet_rows import ParquetWriter, parquet_batches
from housekeeping.stores.files.row_text import Row

_GZIP_LEVEL = 6
_BATCHES: dict[str, Callable[[BinaryIO, Sequence[str]], Iterator[list[Row]]]] = {
    "csv": csv_batches,
    "jsonl": jsonl_batches,
    "parquet": parquet_batches,
}


class RowWriter(Protocol):
    """Writes rows to a file, in the order it is given them."""

    def write(self, rows: Sequence[Row]) -> None: ...

    def close(self) -> None:
        """Write what is still held back; the file itself stays open."""


def require_installed(format_: str) -> None:
    """Raise ExportPlaceRefused where a format's library is missing."""
    if format_ == "parquet" and not parquet_rows.installed():
        raise ExportPlaceRefused(
            url="format parquet",
            reason="pyarrow is not installed. Install celery-housekeeping[parquet], or give "
            'format = "csv" or "jsonl", which need nothing',
        )


def suffix_of(format_: str, compression: str) -> str:
    """Return what a file's name ends in: `.csv.gz`, `.parquet`."""
    zipped = ".gz" if compression == "gzip" and format_ != "parquet" else ""
    return f".{format_}{zipped}"


@contextmanager
def row_writer(
    format_: str, compression: str, sink: BinaryIO, names: Sequence[str], types: Sequence[str]
) -> Iterator[RowWriter]:
    """Write rows for a block; what was held back is written when it ends well."""
    with ExitStack() as closing:
        writer: RowWriter
        if format_ == "parquet":
            writer = parquet = ParquetWriter(sink, names, types, compression)
            closing.callback(parquet.let_go)
        else:
            if compression == "gzip":
                # Neither name nor time inside: the same rows make the same file.
                zipped: Any = gzip.GzipFile("", "wb", _GZIP_LEVEL, cast("Any", sink), mtime=0)
                sink = closing.enter_context(zipped)
            csv = format_ == "csv"
            writer = CsvWriter(sink, names) if csv else JsonLinesWriter(sink, names, types)
        yield writer
        writer.close()


def row_batches(
    format_: str, compression: str, source: BinaryIO, names: Sequence[str]
) -> Iterator[list[Row]]:
    """Yield the rows of a file, some at a time. Raises ValueError, EOFError or OSError when it is
    not what a writer wrote.
    """
    if compression == "gzip" and format_ != "parquet":
        source = cast("BinaryIO", gzip.GzipFile("", "rb", fileobj=source))
    yield from _BATCHES[format_](source, names)
