"""The loop alone: windows that fail in every way, and what it makes of it."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import psycopg2
import pytest
from psycopg2 import errors, sql
from sqlalchemy.exc import DBAPIError

from housekeeping.engine.pacing import Budget, Rest
from housekeeping.engine.purging import (
    MOST_REFUSING_ROWS,
    ConnectionLost,
    PurgeLoop,
    RefusedTooOften,
    Tally,
)
from housekeeping.policies.errors import LeaseLost
from housekeeping.policies.pace import Pace
from housekeeping.policies.result import StopReason
from housekeeping.stores.postgres.emptying import Held, How, TooManyChildren
from housekeeping.stores.postgres.predicate import Predicate
from housekeeping.stores.postgres.ranges import HeapRange, Range
from housekeeping.stores.postgres.windows import FenceBusy, WindowOutcome

NOTHING = sql.SQL("")
PREDICATE = Predicate(NOTHING, NOTHING, NOTHING, {}, ("expired",))
PACE = Pace(duty=1.0, first_window_rows=64)


class FakeClock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Rows:
    """A walk over so many rows, one a block; each window holds as many as it is asked for."""

    name = "heap"
    predicate = PREDICATE
    rows_per_unit = 1.0

    def __init__(self, rows: int) -> None:
        self._rows, self._at = rows, 0

    def next(self, size: int) -> Range | None:
        if self._at >= self._rows:
            return None
        first, self._at = self._at, min(self._rows, self._at + size)
        return HeapRange.blocks(first, self._at)

    def divide(self, window: Range) -> tuple[Range, ...]:
        first, end = held_by(window)
        middle = (first + end) // 2
        if end - first <= 1:
            return ()
        return HeapRange.blocks(first, middle), HeapRange.blocks(middle, end)

    def units(self, window: Range) -> int:
        first, end = held_by(window)
        return end - first

    def position(self) -> str | None:
        return str(self._at)

    def skip_to(self, position: str) -> bool:
        raise NotImplementedError

    def fraction(self) -> float | None:
        return None


def held_by(window: Range) -> tuple[int, int]:
    assert isinstance(window, HeapRange)
    return window.lower.block, window.upper.block


@dataclass
class FakeWindows:
    """Deletes rows by number; `refuse` raises for a window that it does not want."""

    clock: FakeClock
    refuse: Callable[[int, int, Held, bool], None] = lambda *_: None
    seconds: float = 0.1
    seconds_a_row: float = 0.0
    rest_share: float = 0.0
    """seconds of rest inside for a second of work"""
    gone: list[int] = field(default_factory=list)
    passed: list[tuple[int, int]] = field(default_factory=list)
    asked: list[tuple[int, int, Held, bool]] = field(default_factory=list)
    locked: Iterator[str] = field(default_factory=lambda: iter(()))

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
        first, end = held_by(range_)
        self.asked.append((first, end, how.held, how.drain))
        worked = self.seconds + self.seconds_a_row * (end - first)
        rested = self.rest_share * worked
        self.clock.sleep(worked + rested)
        self.refuse(first, end, how.held, how.drain)
        going = list(range(first, end))[: how.limit]
        self.gone += going
        gone = Counter(expired=len(going))
        return WindowOutcome(gone, len(going), 0, False, worked, 0.0, rested)

    def blocked(self) -> str | None:
        return next(self.locked, None)

    def record_passed(self, number: int, walk: str, range_: Range, error: str) -> None:
        self.passed.append(held_by(range_))


class Quiet:
    """A report nobody reads."""

    def committed(self, outcome: WindowOutcome, tally: Tally, fraction: float | None) -> None: ...

    def shrunk(self, window: Range, cause: str) -> None: ...

    def passed(self, window: Range, cause: str, rows: int) -> None: ...


def failing(kind: type[psycopg2.Error]) -> DBAPIError:
    """Return the error SQLAlchemy raises for one of the server's."""

    class Told(kind):  # type: ignore[valid-type, misc]
        pgcode = _CODES[kind]

    return DBAPIError("DELETE", {}, Told("the server's word"))


_CODES: dict[type[psycopg2.Error], str] = {
    errors.QueryCanceled: "57014",
    errors.LockNotAvailable: "55P03",
    errors.RaiseException: "P0001",
    errors.InsufficientPrivilege: "42501",
    errors.AdminShutdown: "57P01",
}


@dataclass
class Bench:
    """A loop and what it works on."""

    windows: FakeWindows
    clock: FakeClock
    pace: Pace = PACE
    limit: int | None = None
    objection: Callable[[], StopReason | None] = lambda: None
    tally: Tally = field(default_factory=Tally)

    def clear(self, rows: int) -> StopReason:
        budget = Budget(self.pace, self.limit, self.clock)
        rest = Rest(self.pace.duty, self.clock, self.objection)
        loop = PurgeLoop(
            self.windows, self.pace, budget, rest, self.clock, self.objection, Quiet(), self.tally
        )
        return loop.run([Rows(rows)])


@pytest.fixture
def bench() -> Bench:
    clock = FakeClock()
    return Bench(FakeWindows(clock), clock)


@pytest.mark.parametrize("rows", [0, 1, 1_000])
def test_all_windows_are_cleared_in_order_and_none_twice(bench: Bench, rows: int) -> None:
    assert bench.clear(rows) is StopReason.EXHAUSTED
    assert bench.windows.gone == list(range(rows))
    assert (bench.tally.rows, bench.tally.left_behind) == (rows, 0)


def test_a_window_that_takes_too_long_is_halved_until_it_fits(bench: Bench) -> None:
    def refuse(first: int, end: int, held: Held, drain: bool) -> None:  # noqa: FBT001
        if end - first > 5:
            raise failing(errors.QueryCanceled)

    bench.windows.refuse = refuse

    assert bench.clear(200) is StopReason.EXHAUSTED
    assert bench.windows.gone == list(range(200))
    assert bench.windows.passed == []


def test_small_rests_count_as_rest_and_a_transaction_lasts_its_target_with_them(
    bench: Bench,
) -> None:
    bench.pace = replace(PACE, duty=0.2)
    bench.windows.seconds, bench.windows.seconds_a_row = 0.0, 0.1 / 64
    bench.windows.rest_share = 4.0  # the first takes 0.5 s, the target is 0.25

    bench.clear(200)

    sizes = [end - first for first, end, *_ in bench.windows.asked]
    assert sizes[:2] == [64, 32]
    assert max(sizes[2:]) <= 32
    assert bench.clock.now == pytest.approx(0.5 / 64 * 200)
    assert bench.tally.phases.wait == pytest.approx(0.4 / 64 * 200)


@pytest.mark.parametrize("poisoned", [{0}, {199}, {63, 64}, {7, 70, 150}])
def test_rows_that_refuse_are_isolated_and_passed(bench: Bench, poisoned: set[int]) -> None:
    def refuse(first: int, end: int, held: Held, drain: bool) -> None:  # noqa: FBT001
        if poisoned & set(range(first, end)):
            raise failing(errors.RaiseException)

    bench.windows.refuse = refuse

    assert bench.clear(200) is StopReason.EXHAUSTED
    assert bench.windows.gone == [row for row in range(200) if row not in poisoned]
    assert bench.windows.passed == [(row, row + 1) for row in sorted(poisoned)]
    assert bench.tally.left_behind == len(poisoned)


def test_more_refusing_rows_than_a_few_poisoned_ones_stop_the_run(bench: Bench) -> None:
    def refuse(*_: object) -> None:
        raise failing(errors.RaiseException)

    bench.windows.refuse = refuse

    with pytest.raises(RefusedTooOften, match=r"101 rows refused .* the server's word"):
        bench.clear(10_000)
    assert len(bench.windows.passed) == MOST_REFUSING_ROWS + 1


def test_a_window_in_which_somebody_holds_a_row_is_done_again_past_that_row(bench: Bench) -> None:
    def refuse(first: int, end: int, held: Held, drain: bool) -> None:  # noqa: FBT001
        if held is Held.WAIT and first == 0:
            raise failing(errors.LockNotAvailable)

    bench.windows.refuse = refuse

    assert bench.clear(100) is StopReason.EXHAUSTED
    first, second = bench.windows.asked[:2]
    assert (first[:3], second[:3]) == ((0, first[1], Held.WAIT), (0, first[1], Held.PASS))
    assert bench.windows.gone == list(range(100))


def test_rows_with_too_many_children_come_alone_and_are_then_drained(bench: Bench) -> None:
    def refuse(first: int, end: int, held: Held, drain: bool) -> None:  # noqa: FBT001
        if first <= 42 < end and not drain:
            raise TooManyChildren

    bench.windows.refuse = refuse

    assert bench.clear(100) is StopReason.EXHAUSTED
    assert [asked for asked in bench.windows.asked if asked[3]] == [(42, 43, Held.WAIT, True)]
    assert bench.windows.gone == list(range(100))


def test_a_batch_of_another_session_is_waited_for_but_not_for_ever(bench: Bench) -> None:
    def refuse(*_: object) -> None:
        if bench.clock.now < 5:
            raise FenceBusy

    bench.windows.refuse = refuse
    assert bench.clear(10) is StopReason.EXHAUSTED

    def never(*_: object) -> None:
        raise FenceBusy

    bench.windows.refuse = never
    with pytest.raises(LeaseLost, match="another session"):
        bench.clear(10)
    assert bench.clock.now < 30


@pytest.mark.parametrize("limit", [1, 63, 64, 65, 150])
def test_a_limit_is_exact(bench: Bench, limit: int) -> None:
    bench.limit = limit

    assert bench.clear(200) is StopReason.ROW_BUDGET
    assert bench.windows.gone == list(range(limit))


def test_the_run_leaves_between_windows_once_its_time_is_over(bench: Bench) -> None:
    bench.windows.seconds = 61.0
    bench.pace = replace(PACE, time_budget=60 * PACE.batch_target * 4)

    assert bench.clear(10_000) is StopReason.TIME_BUDGET
    assert len(bench.windows.asked) == 1


def test_an_objection_is_heard_between_the_pieces_of_a_window(bench: Bench) -> None:
    def refuse(first: int, end: int, held: Held, drain: bool) -> None:  # noqa: FBT001
        if end - first > 8:
            raise failing(errors.QueryCanceled)

    bench.windows.refuse = refuse
    bench.objection = lambda: StopReason.STOPPED if bench.windows.gone else None

    assert bench.clear(200) is StopReason.STOPPED
    assert len(bench.windows.gone) == 8


@pytest.mark.parametrize(
    ("word", "told"),
    [(errors.InsufficientPrivilege, DBAPIError), (errors.AdminShutdown, ConnectionLost)],
)
def test_what_no_smaller_window_would_cure_ends_the_run(
    bench: Bench, word: type[psycopg2.Error], told: type[Exception]
) -> None:
    def refuse(*_: object) -> None:
        raise failing(word)

    bench.windows.refuse = refuse
    with pytest.raises(told):
        bench.clear(10)
    assert len(bench.windows.asked) == 1
