"""The windows of a walk: disjoint, in order, and each can be divided down to a single row."""

from collections.abc import Callable
from typing import Protocol

from sqlalchemy import Connection

from housekeeping.engine.planning import HeapPlan, KeyPlan
from housekeeping.stores.postgres.catalog import TableFacts
from housekeeping.stores.postgres.predicate import Predicate
from housekeeping.stores.postgres.probes import blocks_now, probing
from housekeeping.stores.postgres.ranges import HeapRange, KeyRange, Range, Tid

# Up to here rows with one key go in one window: about 50 ms. More came by a bulk load.
LARGEST_TIE = 50_000


class Walk(Protocol):
    """A way through a table. It ends when its windows are exhausted, never at a short one."""

    name: str
    predicate: Predicate
    rows_per_unit: float

    def next(self, size: int) -> Range | None:
        """Return the next window of about `size` units; None at the end."""

    def divide(self, window: Range) -> tuple[Range, ...]:
        """Return smaller windows that cover a window; none when it holds a single row."""

    def units(self, window: Range) -> int:
        """Return how many units a window holds."""

    def position(self) -> str | None:
        """Return where the walk is once its last window is done; None where it can't be told."""

    def skip_to(self, position: str) -> bool:
        """Go on from a position an earlier attempt came to; False where that is nowhere any more."""

    def fraction(self) -> float | None:
        """Return how much of the walk is behind us, 0 to 1; None when only the rows tell."""


class BlockWalk:
    """From one block of the heap to another."""

    def __init__(self, plan: HeapPlan, first: int, end: int) -> None:
        self.name = plan.name
        self.predicate = plan.predicate
        self.rows_per_unit = max(plan.rows, 1) / max(plan.blocks, 1)
        self._at = first
        self._end = end

    def next(self, size: int) -> Range | None:
        if self._at >= self._end:
            return None
        first, self._at = self._at, min(self._end, self._at + size)
        return HeapRange.blocks(first, self._at)

    def divide(self, window: Range) -> tuple[Range, ...]:
        assert isinstance(window, HeapRange)
        return window.halves()

    def units(self, window: Range) -> int:
        assert isinstance(window, HeapRange)
        return max(1, window.upper.block - window.lower.block)

    def position(self) -> str | None:
        return str(self._at)

    def skip_to(self, position: str) -> bool:
        self._at = int(position)
        return True

    def fraction(self) -> float | None:
        return self._at / max(1, self._end)


class HeapWalk(BlockWalk):
    """From the first block to the last one; its end is looked up once more when it is reached."""

    def __init__(self, plan: HeapPlan, filenode: int, blocks_now: Callable[[], int]) -> None:
        super().__init__(plan, 0, plan.blocks)
        self._filenode = filenode
        self._blocks_now: Callable[[], int] | None = blocks_now

    def next(self, size: int) -> Range | None:
        if self._at >= self._end and self._blocks_now is not None:
            # Once: rows that were updated meanwhile may have moved behind the former end.
            self._end, self._blocks_now = max(self._end, self._blocks_now()), None
        return super().next(size)

    def position(self) -> str | None:
        return f"{self._filenode}:{self._at}"

    def skip_to(self, position: str) -> bool:
        filenode, _, block = position.partition(":")
        if filenode != str(self._filenode):
            return False  # it was rewritten between the attempts
        return super().skip_to(block)


class KeyWalk:
    """Along an index, from its oldest entry to the cutoff.

    Rows that share one key by the thousand (a bulk load in one transaction) can't be told apart by
    it; they lie together in the heap, so that stretch is walked by blocks.
    """

    rows_per_unit = 1.0

    def __init__(self, plan: KeyPlan, facts: TableFacts, connection: Connection) -> None:
        self.name = plan.name
        self.predicate = plan.predicate
        self._probe = plan.probe
        self._facts = facts
        self._connection = connection
        self._density = max(plan.table_rows, 1) / max(facts.pages, 1)
        self._lower: str | None = None
        self._ended = False
        self._tie: HeapRange | None = None

    def next(self, size: int) -> Range | None:
        if self._tie is not None:
            return self._next_of_tie(self._tie, size)
        if self._ended:
            return None
        with probing(self._connection):
            found = self._probe.next_range(self._connection, self._lower, size)
            if found is None:
                self._ended = True
                return None
            self._ended = found.rows < size
            before, self._lower = self._lower, found.upper
            if self._ended or not self._probe.tie_exceeds(
                self._connection, found.upper, max(size, LARGEST_TIE)
            ):
                return found
            self._tie = self._probe.tie_span(self._connection, found.upper)
        return KeyRange(found.key, before, found.upper, upper_included=False, rows=found.rows)

    def _next_of_tie(self, tie: HeapRange, size: int) -> Range:
        cut = Tid(tie.lower.block + max(1, int(size / self._density)))
        if cut >= tie.upper:
            self._tie = None
            return tie
        self._tie = HeapRange(cut, tie.upper)
        return HeapRange(tie.lower, cut)

    def divide(self, window: Range) -> tuple[Range, ...]:
        if isinstance(window, HeapRange):
            return window.halves()
        with probing(self._connection):
            half = max(1, window.rows // 2)
            middle = self._probe.next_range(self._connection, window.lower, half)
            if middle is not None and middle.upper != window.upper and window.rows > 1:
                rest = window.rows - middle.rows
                upper = KeyRange(
                    window.key, middle.upper, window.upper, window.upper_included, max(1, rest)
                )
                return middle, upper
            span = self._probe.heap_span(self._connection, window)
        return () if span is None else span.halves()

    def units(self, window: Range) -> int:
        if isinstance(window, HeapRange):
            return max(1, int((window.upper.block - window.lower.block) * self._density))
        return window.rows

    def position(self) -> str | None:
        return None if self._tie is not None else self._lower

    def skip_to(self, position: str) -> bool:
        self._lower = position
        return True

    def fraction(self) -> float | None:
        return None


def walk_of(plan: HeapPlan | KeyPlan, facts: TableFacts, connection: Connection) -> Walk:
    """Return the walk a plan asks for."""
    if isinstance(plan, HeapPlan):
        return HeapWalk(plan, facts.filenode, lambda: blocks_now(connection, facts))
    return KeyWalk(plan, facts, connection)
