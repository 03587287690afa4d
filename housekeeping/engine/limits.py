"""How much of a table a run may take without a yes: asked of the plan, and of every window."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Protocol

from sqlalchemy import Connection

from housekeeping.engine.purging import Tally, Windows
from housekeeping.engine.walks import LARGEST_TIE
from housekeeping.policies.errors import AllowanceExceeded
from housekeeping.stores.postgres.connection import guarded
from housekeeping.stores.postgres.counting import expired_in, expired_up_to, rows_up_to
from housekeeping.stores.postgres.emptying import How
from housekeeping.stores.postgres.predicate import Predicate
from housekeeping.stores.postgres.preflight import Target
from housekeeping.stores.postgres.ranges import HeapRange, Range
from housekeeping.stores.postgres.windows import WindowOutcome

_MARGIN = 2  # the table is shown to be so large that twice the expected rows could go
_FEWEST = 1_000
_AGAIN = 8  # the expectation was wrong: count that much further
_PAGE_HEADER = 24
_SMALLEST_ROW = 28  # a line pointer and a header


class Expectation(Protocol):
    """What a plan says of the rows that will go."""

    @property
    def estimate(self) -> int: ...

    @property
    def table_rows(self) -> int: ...

    @property
    def well_known(self) -> bool: ...


def expired_by(
    connection: Connection, target: Target, predicates: Sequence[Predicate], most: int
) -> int | None:
    """Return how many rows would go, `most` where as many; None when that takes too long."""
    total = 0
    for predicate in predicates:
        found = expired_up_to(connection, target.facts, predicate, most - total)
        if found is None:
            return None
        total += found
    return total


@dataclass
class Limit:
    """How many rows one run may take of its table.

    A share is one of rows that were counted, as far as it takes to show that so many may go: the
    planner's word for a table's rows was off by a factor of ten after a bulk load was undone.
    """

    connection: Connection
    target: Target
    tally: Tally
    """knows the rows gone already, in this attempt of the run and those before"""
    table_rows: int = 0
    """counted: the table had at least so many when the run began"""
    whole: bool = False
    """there were no more"""
    _asked: int = 0

    @property
    def left(self) -> int:
        """Return how many rows may still go."""
        allowed = self.target.policy.allowance.of(self.table_rows)
        assert allowed is not None
        return max(0, allowed - self.tally.rows)

    def measure(self, expected: int) -> None:
        """Count the table as far as it takes to let `expected` rows go."""
        share = self.target.policy.allowance.share
        if share is None:
            self.whole = True
            return
        wanted = ceil(_MARGIN * max(expected, _FEWEST) / share)
        if not self._count(wanted):
            self._count(wanted // _AGAIN)  # within the time there is; the rest counts as not there

    def extend(self) -> bool:
        """Count further; False when the limit stays where it is."""
        before = self.left
        return not self.whole and self._count(self._asked * _AGAIN) and self.left > before

    def _count(self, most: int) -> bool:
        counted = rows_up_to(self.connection, self.target.facts, most)
        if counted is None:
            return False
        self._asked, self.whole = most, counted < most
        self.table_rows = max(self.table_rows, counted + self.tally.rows)
        return True

    def check(self, plan: Expectation, predicates: Sequence[Predicate], budget: int | None) -> None:
        """Ask of a plan what it would take. Raises AllowanceExceeded; nothing has gone by it.

        The planner's estimate is trusted where it says few; where it says too many, or knows
        nothing, they are counted. `budget`: the run ends after so many rows anyway.
        """
        self.measure(plan.estimate)
        if plan.estimate <= self.left and plan.well_known:
            return
        if budget is not None and budget <= self.left:
            return
        while True:
            found = expired_by(self.connection, self.target, predicates, self.left + 1)
            if (plan.estimate if found is None else found) <= self.left:
                return
            if not self.extend():
                counted = "" if found is None else f"at least {found + self.tally.rows:,} "
                raise self.exceeded(f"{counted}(about {plan.estimate:,} by the planner's estimate)")

    def over(self, rows: int) -> AllowanceExceeded | None:
        """Return the error a run of so many rows would end with; None where it may take them."""
        self.measure(rows)
        while rows > self.left:
            if not self.extend():
                return self.exceeded(f"{rows:,}")
        return None

    def exceeded(self, found: str) -> AllowanceExceeded:
        """Return the error that tells what a run would take."""
        allowance, allowed = self.target.policy.allowance, self.left + self.tally.rows
        of = "" if allowance.share is None else f" of {self._size()} rows"
        return AllowanceExceeded(
            table=self.target.facts.label,
            found=found.strip(),
            limit=f"{allowed:,}{of}",
            allowance=allowance,
            done=f"{self.tally.rows:,} rows had gone" if self.tally.rows else "Nothing was taken",
        )

    def _size(self) -> str:
        return f"{self.table_rows:,}" if self.whole else f"at least {self.table_rows:,}"


class LimitedWindows:
    """Lets windows pass until the next one would take more than the limit: that one is not begun."""

    def __init__(self, windows: Windows, limit: Limit, target: Target) -> None:
        self._windows = windows
        self._limit = limit
        self._target = target

    def delete(
        self,
        number: int,
        walk: str,
        range_: Range,
        predicate: Predicate,
        how: How,
        *,
        done_to: str | None,
    ) -> WindowOutcome:
        """Take a window's rows if there are few enough. Raises AllowanceExceeded."""
        limit = self._limit
        asked = how.limit
        if self._most(range_) > limit.left and (asked is None or asked > limit.left):
            while (found := self._count(range_, predicate, limit.left + 1)) > limit.left:
                if not limit.extend():
                    raise limit.exceeded(f"at least {found + limit.tally.rows:,}")
            how = replace(how, limit=limit.left if asked is None else min(asked, limit.left))
        return self._windows.delete(number, walk, range_, predicate, how, done_to=done_to)

    def record_passed(self, number: int, walk: str, range_: Range, error: str) -> None:
        self._windows.record_passed(number, walk, range_, error)

    def blocked(self) -> str | None:
        return self._windows.blocked()

    def _most(self, range_: Range) -> int:
        """Return how many rows a window can hold at most."""
        if isinstance(range_, HeapRange):
            page = (self._target.facts.block_size - _PAGE_HEADER) // _SMALLEST_ROW
            return (range_.upper.block - range_.lower.block + 1) * page
        # As many were counted a moment ago; its last key may be one of a bulk load.
        return _MARGIN * range_.rows + LARGEST_TIE

    def _count(self, range_: Range, predicate: Predicate, most: int) -> int:
        connection, target = self._limit.connection, self._target
        with guarded(connection, target.policy.pace, reading=True):
            return expired_in(connection, target.facts, range_, predicate, most)
