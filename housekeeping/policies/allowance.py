"""How much of a table one run may take before somebody has to say yes."""

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """At most so much of a table in one run; a run that would take more stops and asks.

    A wrong age unit, a changed clock or a `where` that lost a word look like this: suddenly most of
    the table has expired. Both limits hold where both are given; without either there is none.
    """

    share: float | None = None
    """of the rows the table holds when the run begins, above 0 up to 1"""
    rows: int | None = None

    @property
    def given(self) -> bool:
        return self.share is not None or self.rows is not None

    def of(self, table_rows: int) -> int | None:
        """Return how many rows of a table with so many may go; None is no limit."""
        limits = [] if self.rows is None else [self.rows]
        if self.share is not None:
            # 0.29 as it was written: 0.29 * 100 is 28.999999999999996 to a float.
            limits.append(int(Fraction(str(self.share)) * table_rows))
        return min(limits, default=None)

    def __str__(self) -> str:
        told = [] if self.share is None else [f"allow_share = {self.share:g}"]
        told += [] if self.rows is None else [f"allow_rows = {self.rows}"]
        return ", ".join(told) or "no limit"
