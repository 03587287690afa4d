"""The two shapes of a window: a stretch of the heap, or a stretch of the age's own order.

A range bounds what a statement reads; the predicate alone says what goes. So a range may always be
divided or walked again.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from psycopg2 import sql

from housekeeping.stores.postgres.catalog import TableFacts
from housekeeping.stores.postgres.statement import identifier, raw

# More line pointers than the largest page (32 kB) can hold: 1,169 tuples of 24 bytes and a pointer.
_POINTERS = 2_048
# Below it, going through a range costs about what looking at three of its blocks would.
_WORTH_SAMPLING = 16


@dataclass(frozen=True)
class Sample:
    """A few rows of a range, by which to guess what the others are like."""

    condition: sql.Composable
    values: Mapping[str, Any]
    limit: sql.Composable
    """` ORDER BY ... LIMIT 1`, or nothing where the condition alone tells the rows"""


@dataclass(frozen=True, order=True)
class Tid:
    """A place in the heap: block, line pointer."""

    block: int
    pointer: int = 0

    def __str__(self) -> str:
        return f"({self.block},{self.pointer})"

    @classmethod
    def parse(cls, text: str) -> "Tid":
        """Read `(12,3)` as the server writes it."""
        block, _, pointer = text.strip("()").partition(",")
        return cls(int(block), int(pointer))

    @property
    def place(self) -> int:
        return self.block * _POINTERS + self.pointer


@dataclass(frozen=True)
class HeapRange:
    """All rows from one place of the heap up to, not including, another (a TID range scan)."""

    lower: Tid
    upper: Tid

    @classmethod
    def blocks(cls, first: int, end: int) -> "HeapRange":
        return cls(Tid(first), Tid(end))

    def halves(self) -> tuple["HeapRange", ...]:
        """Return two smaller ranges, or none when this one holds a single line pointer."""
        size = self.upper.place - self.lower.place
        if size <= 1:
            return ()
        middle = self.lower.place + size // 2
        if self.upper.block - self.lower.block > 1:
            middle -= middle % _POINTERS  # whole blocks as long as there are several
        cut = Tid(*divmod(middle, _POINTERS))
        return HeapRange(self.lower, cut), HeapRange(cut, self.upper)

    def condition(self, facts: TableFacts) -> sql.Composable:
        return sql.SQL("{row} >= %(lower)s::tid AND {row} < %(upper)s::tid").format(
            row=identifier(facts.name, "ctid")
        )

    @property
    def values(self) -> Mapping[str, Any]:
        return {"lower": str(self.lower), "upper": str(self.upper)}

    def bounds(self) -> tuple[str, str]:
        return str(self.lower), str(self.upper)

    def samples(self, facts: TableFacts) -> tuple[Sample, ...]:
        """Return its first, middle and last block; nothing for a range of a few blocks."""
        blocks = self.upper.block - self.lower.block
        if blocks < _WORTH_SAMPLING:
            return ()
        return tuple(
            self._block(facts, number, self.lower.block + beyond)
            for number, beyond in enumerate((0, blocks // 2, blocks - 1))
        )

    def _block(self, facts: TableFacts, number: int, block: int) -> Sample:
        first, end = f"sample_{number}", f"sample_end_{number}"
        condition = sql.SQL("{row} >= {first}::tid AND {row} < {end}::tid").format(
            row=identifier(facts.name, "ctid"),
            first=sql.Placeholder(first),
            end=sql.Placeholder(end),
        )
        return Sample(condition, {first: str(Tid(block)), end: str(Tid(block + 1))}, sql.SQL(""))


@dataclass(frozen=True)
class Key:
    """What an index orders rows by, and the equality that goes before it in that index."""

    expression: sql.Composable
    type: str
    """as format_type writes it; bounds travel as text, so that -infinity arrives too"""
    column: str | None = None
    value: str | int | bool | None = None
    where: str | None = None
    """the policy's own expression, where a partial index holds only rows it is true for"""

    @property
    def equality(self) -> sql.Composable:
        """What stands before the key in every condition: with it, the index needs no filter."""
        tests: sql.Composable = sql.SQL("")
        if self.column is not None:
            tests = sql.SQL("{} = %(equals)s AND ").format(identifier(self.column))
        if self.where is not None:
            tests = sql.SQL("{}(\n{}\n) AND ").format(tests, raw(self.where))
        return tests

    @property
    def values(self) -> Mapping[str, Any]:
        return {} if self.column is None else {"equals": self.value}

    def bound(self, placeholder: str) -> sql.Composable:
        # The type comes from format_type, which quotes what needs quoting.
        return sql.SQL("{}::{}").format(sql.Placeholder(placeholder), raw(self.type))


@dataclass(frozen=True)
class KeyRange:
    """All rows whose key lies after `lower` and up to `upper`, both as text."""

    key: Key
    lower: str | None
    """not included; None is the beginning"""
    upper: str
    upper_included: bool
    rows: int
    """index entries the probe counted"""

    @property
    def shape(self) -> Hashable:
        """What ranges of a key have in common whose statements differ by bound values alone."""
        return (self.lower is None, self.upper_included)

    def condition(self, facts: TableFacts) -> sql.Composable:  # noqa: ARG002 - as in HeapRange
        after: sql.Composable = sql.SQL("")
        if self.lower is not None:
            after = sql.SQL("{} > {} AND ").format(self.key.expression, self.key.bound("lower"))
        return sql.SQL("{equality}{after}{key} {until} {upper}").format(
            equality=self.key.equality,
            after=after,
            key=self.key.expression,
            until=sql.SQL("<=" if self.upper_included else "<"),
            upper=self.key.bound("upper"),
        )

    @property
    def values(self) -> Mapping[str, Any]:
        lower = {} if self.lower is None else {"lower": self.lower}
        return {**self.key.values, **lower, "upper": self.upper}

    def bounds(self) -> tuple[str | None, str]:
        return self.lower, self.upper

    def samples(self, facts: TableFacts) -> tuple[Sample, ...]:
        """Return its first row and its last one."""
        ends = (sql.SQL(" ORDER BY {} LIMIT 1"), sql.SQL(" ORDER BY {} DESC LIMIT 1"))
        return tuple(
            Sample(self.condition(facts), self.values, end.format(self.key.expression))
            for end in ends
        )


Range = HeapRange | KeyRange
