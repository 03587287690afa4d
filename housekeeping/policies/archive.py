"""Where archived rows go: dated tables beside their source, one a month."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class ArchiveIndex:
    """An index every dated table of one source gets once a run has moved all there was."""

    columns: tuple[str, ...]
    table: str | None = None
    """the child table whose dated tables get it; None is the archived table itself"""


@dataclass(frozen=True, kw_only=True)
class ArchiveTo:
    """Rows move to `PREFIX_2024_01`, their child tables' rows to `PREFIX_2024_01_SUFFIX`."""

    prefix: str
    schema: str | None = None
    """None is the schema of the archived table"""
    month_of: Literal["row", "run"] = "row"
    """the month, in UTC, of a row's age; or of the run, as Milvaion's own job names its tables"""
    suffixes: tuple[tuple[str, str], ...] = ()
    """(child table, suffix); a child without one is called by its own name"""
    indexes: tuple[ArchiveIndex, ...] = ()

    def suffix_of(self, child: str) -> str:
        """Return what the dated tables of a child table end in."""
        return dict(self.suffixes).get(child, child)
