"""What becomes of archived rows: when a dated table may go, where it is exported to, put back from.

A dated table holds one month of rows that a run of archiving moved. Its age counts from the end of
that month, by the database's clock.
"""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from housekeeping.policies.policy import Policy
from housekeeping.policies.table import TableName

ExportFormat = Literal["parquet", "csv", "jsonl"]
COMPRESSIONS: dict[str, tuple[str, ...]] = {
    "parquet": ("zstd", "snappy", "gzip", "none"),
    "csv": ("gzip", "none"),
    "jsonl": ("gzip", "none"),
}
"""what a format may be compressed with; the first is the default"""

KEEPS_NOTHING = frozenset(
    ("memory", "data", "http", "https", "reference", "zip", "tar", "libarchive", "git", "github")
)
"""fsspec's protocols that end with the process, can't be written, or are a view of something else"""

_MONTH = re.compile(r"([0-9]{4})_(0[1-9]|1[0-2])")
_LAST_YEAR = 9999


@dataclass(frozen=True, kw_only=True)
class ExportTo:
    """Where tables are exported to before they go: dated ones, detached partitions.

    `url`: a folder on any file system or object store fsspec knows; it may hold a password.
    `compression`: one of COMPRESSIONS; left out, the format's first.
    """

    url: str = field(repr=False)
    format: ExportFormat = "parquet"
    compression: str = ""

    def __post_init__(self) -> None:
        if not self.compression:
            object.__setattr__(self, "compression", COMPRESSIONS[self.format][0])
        if self.compression not in COMPRESSIONS[self.format]:
            accepted = ", ".join(COMPRESSIONS[self.format])
            raise ValueError(f"{self.format} is compressed with one of {accepted}")


@dataclass(frozen=True, kw_only=True)
class ArchiveExpiryPolicy(Policy):
    """Which dated tables go, after which age, and whether they are exported first."""

    keep_for: timedelta
    """counted from the end of a table's month"""
    source: TableName | None = None
    """the table whose rows were archived; None is every one in the database"""
    but: tuple[TableName, ...] = ()
    """where `source` is None: tables another policy answers for"""
    undated: bool = False
    """tables of rows without a month go too, `keep_for` after the last row came"""
    export: ExportTo | None = None
    archived_after: timedelta | None = None
    """how old rows are when they come to a table of their own month, where that is known"""

    def __post_init__(self) -> None:
        if self.keep_for <= timedelta(0):
            raise ValueError("keep_for must be above zero")

    @property
    def works_on(self) -> str:
        return f"archives of {self.source}" if self.source else "all archives"

    @property
    def total_key(self) -> str:
        return "total_cleaned"

    @property
    def detail_keys(self) -> tuple[str, ...]:
        return (
            "tables_dropped",
            "tables_exported",
            "rows_dropped",
            "rows_exported",
            "kept_incomplete",
        )


@dataclass(frozen=True, kw_only=True)
class RestorePolicy(Policy):
    """Archived or exported rows that are to go back where they came from.

    Exactly one of `relation`, a dated table of the database or a partition that was dropped, and
    `manifest_url`, an export.
    """

    relation: str | None = None
    manifest_url: str | None = field(default=None, repr=False)
    places: tuple[ExportTo, ...] = field(default=(), repr=False)
    """where this installation exports to: a table that was dropped is looked for there"""
    drop_columns: bool = False
    """columns the source table no longer has are left out instead of refused"""
    takers: tuple[tuple[str, str], ...] = ()
    """(table as settings name it, task that would take the rows again)"""

    @property
    def works_on(self) -> str:
        return self.relation or "an export"

    @property
    def total_key(self) -> str:
        return "total_restored"

    @property
    def detail_keys(self) -> tuple[str, ...]:
        return ("restored", "already_there", "key_taken", "parent_missing", "refused")


def month_end(period: str) -> datetime | None:
    """Return when the month of a dated table ended, UTC; None for the undated one's."""
    found = _MONTH.fullmatch(period)
    if found is None or int(found[1]) in (0, _LAST_YEAR):
        return None
    year, month = int(found[1]), int(found[2])
    return datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
