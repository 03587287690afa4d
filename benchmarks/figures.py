"""Measured against promised."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One thing that was measured; without a target it is there to be looked at."""

    name: str
    measured: str
    target: str = ""
    met: bool | None = None


def table_of(figures: Sequence[Figure]) -> str:
    """Return the figures as lines of text."""
    rows = [("figure", "measured", "target", "met")]
    rows += [(one.name, one.measured, one.target, _word(one.met)) for one in figures]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)


def _word(met: bool | None) -> str:  # noqa: FBT001 - three answers, not a switch
    return {True: "yes", False: "NO", None: ""}[met]
