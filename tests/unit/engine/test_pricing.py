"""The price of a run: near what was measured, and learned from former runs."""

from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from housekeeping.engine.price.effort import counting_seconds
from housekeeping.engine.price.pricing import learned, price, vacuum_advised
from housekeeping.engine.price.work import Going, Work
from housekeeping.policies.pace import Pace
from housekeeping.stores.postgres.storage import Server, Storage

BRISK = Pace(duty=1.0)
NARROW = Storage(rows=1_000_000, pages=6_400, row_bytes=52)
PLAIN = Storage(rows=600_000, pages=12_288, row_bytes=165)
WIDE = Storage(rows=150_000, pages=18_752, row_bytes=1_010)
LONG = Storage(rows=30_000, pages=256, row_bytes=70, toast_rows=90_000, toast_pages=22_500)
PARENT = Storage(rows=200_000, pages=4_096, row_bytes=165)
LOGS = Storage(rows=600_000, pages=7_700, row_bytes=104)
LOG = Storage(rows=200_000, pages=2_565, row_bytes=96)


@dataclass(frozen=True)
class Measured:
    """A run on PostgreSQL 18 that had the machine for itself."""

    work: Work
    worked: float
    """seconds"""
    wal: float
    """bytes for each row"""


def work(
    storage: Storage, rows: int, *, by_index: bool = False, order: float = 1.0, **more: object
) -> Work:
    """Return work on rows that are all there is below the cutoff."""
    entries = rows if by_index else 0
    return Work(
        storage=storage,
        rows=rows,
        below=rows,
        order=order,
        by_index=by_index,
        entries=entries,
        **more,  # type: ignore[arg-type]
    )


MEASURED = {
    "narrow, heap": Measured(work(NARROW, 500_000), 0.21, 109),
    "narrow, index": Measured(work(NARROW, 200_000, by_index=True), 0.09, 110),
    "plain, heap": Measured(work(PLAIN, 300_000), 0.19, 222),
    "plain, a tenth by the heap": Measured(work(PLAIN, 60_000), 0.06, 247),
    "plain, index": Measured(work(PLAIN, 120_000, by_index=True), 0.09, 223),
    "plain, little": Measured(work(PLAIN, 12_001, by_index=True), 0.017, 237),
    "wide, heap": Measured(work(WIDE, 75_000), 0.19, 1_085),
    "wide, index": Measured(work(WIDE, 30_000, by_index=True), 0.06, 1_080),
    "strewn, half": Measured(work(PLAIN, 300_000, order=0.0), 0.24, 387),
    "strewn, a twentieth": Measured(work(PLAIN, 30_000, order=0.0), 0.145, 2_318),
    "strewn, hardly any": Measured(work(PLAIN, 1_201, order=0.0), 0.085, 8_272),
    "strewn, index": Measured(work(PLAIN, 12_001, by_index=True, order=0.0), 0.095, 5_480),
    "out of line": Measured(work(LONG, 15_001), 0.24, 6_228),
    "pinned for a keeper": Measured(work(PARENT, 100_000, pinned=True, keepers=1), 0.32, 293),
    "an empty child": Measured(
        work(PARENT, 100_000, pinned=True, keys=1),
        0.585,
        279,
    ),
    "three child rows": Measured(
        work(PARENT, 100_000, pinned=True, keys=1, going=(Going(storage=LOGS, rows=300_000),)),
        1.25,
        861,
    ),
    "set null": Measured(
        work(PARENT, 60_000, keys=1, going=(Going(storage=LOG, rows=60_000, updated=True),)),
        0.445,
        583,
    ),
    "grandchildren": Measured(
        work(
            PARENT,
            60_000,
            pinned=True,
            keys=1,
            going=(
                Going(storage=Storage(rows=200_000, pages=885, row_bytes=36), rows=60_000),
                Going(
                    storage=Storage(rows=200_000, pages=885, row_bytes=36),
                    rows=60_000,
                    by_trigger=True,
                ),
            ),
        ),
        0.846,
        505,
    ),
    "archived": Measured(
        work(replace(PLAIN, rows=400_000, pages=8_192), 120_000, by_index=True, archived=True),
        0.35,
        507,
    ),
}
ALL = pytest.mark.parametrize("measured", MEASURED.values(), ids=MEASURED)


@ALL
def test_the_seconds_are_near_what_was_measured(measured: Measured) -> None:
    told = price(measured.work, BRISK).worked_seconds

    assert measured.worked / 1.8 <= told <= measured.worked * 1.8


@ALL
def test_the_wal_is_near_what_was_measured(measured: Measured) -> None:
    told = price(measured.work, BRISK).wal_bytes / measured.work.rows

    assert told == pytest.approx(measured.wal, rel=0.45)


def test_rests_are_part_of_the_time_a_run_takes() -> None:
    half = price(work(PLAIN, 300_000), Pace(duty=0.5))

    assert half.rest_seconds == pytest.approx(half.worked_seconds)
    assert half.seconds > half.worked_seconds + half.rest_seconds
    assert price(work(PLAIN, 300_000), BRISK).rest_seconds == 0


def test_a_remembered_window_size_spares_the_small_first_windows() -> None:
    plain = work(PLAIN, 300_000)

    assert price(plain, BRISK, size=6_000).batches < price(plain, BRISK).batches


def test_shorter_windows_are_more_of_them() -> None:
    short = Pace(duty=1.0, batch_target=timedelta(milliseconds=10))

    assert (
        price(work(PLAIN, 300_000), short).batches > 2 * price(work(PLAIN, 300_000), BRISK).batches
    )


def test_without_full_page_writes_a_row_is_its_record_alone() -> None:
    spare = work(PLAIN, 300_000, server=Server(full_page_writes=False))

    assert 56 <= price(spare, BRISK).wal_bytes / 300_000 < 60


def test_a_table_the_cache_cannot_hold_is_dearer() -> None:
    small_cache = work(PLAIN, 300_000, server=Server(cache_bytes=1e6))

    assert price(small_cache, BRISK).seconds > 2 * price(work(PLAIN, 300_000), BRISK).seconds


def test_former_runs_say_how_slow_this_server_is() -> None:
    plain = work(PLAIN, 300_000)
    alone = price(plain, BRISK).worked_seconds

    factor = learned([(300_000, 4 * alone)], plain, BRISK)

    assert factor == pytest.approx(4)
    slower = price(plain, BRISK, factor=factor)
    assert slower.worked_seconds == pytest.approx(4 * alone, rel=0.35)


def test_a_former_run_over_fewer_rows_says_the_same() -> None:
    plain = work(PLAIN, 300_000)
    tenth = price(plain.scaled(30_000), BRISK).worked_seconds

    assert learned([(30_000, 4 * tenth)], plain, BRISK) == pytest.approx(4)


def test_nothing_is_learned_from_no_run_or_too_much_from_an_odd_one() -> None:
    plain = work(PLAIN, 300_000)

    assert learned([], plain, BRISK) == 1.0
    assert learned([(300_000, 1e6)], plain, BRISK) == 20.0
    assert learned([(300_000, 1e-9)], plain, BRISK) == 0.1


@given(st.integers(0, 600_000), st.integers(0, 600_000), st.floats(0, 1))
def test_more_rows_never_cost_less(some: int, more: int, order: float) -> None:
    some, more = sorted((some, more))
    few = price(Work(storage=PLAIN, rows=some, below=600_000, order=order, by_index=False), BRISK)
    many = price(Work(storage=PLAIN, rows=more, below=600_000, order=order, by_index=False), BRISK)

    assert few.worked_seconds <= many.worked_seconds * 1.01 + 0.02
    assert few.wal_bytes <= many.wal_bytes * 1.01 + 10_000


def test_an_empty_table_costs_next_to_nothing() -> None:
    empty = Storage(rows=0, pages=0, row_bytes=28)

    told = price(work(empty, 0), BRISK)

    assert (told.batches, told.pages, told.reusable_bytes) == (0, 0, 0)
    assert told.seconds < 1


@pytest.mark.parametrize(
    ("dead", "rows", "advised"),
    [(50_000, 100_000, False), (50_001, 100_000, True), (60_000, 2_000_000, False)],
)
def test_a_vacuum_is_advised_for_many_dead_rows_only(
    dead: int, rows: int, *, advised: bool
) -> None:
    assert vacuum_advised(dead, rows) is advised


def test_counting_is_priced_as_if_nothing_were_in_the_cache() -> None:
    plain = work(PLAIN, 1_000)

    assert counting_seconds(plain, BRISK) == pytest.approx(12_288 * 40e-6, rel=0.01)
    assert counting_seconds(plain, Pace(duty=0.5)) == 2 * counting_seconds(plain, BRISK)
    by_index = work(PLAIN, 1_000, by_index=True)
    assert counting_seconds(by_index, BRISK) < 0.01
