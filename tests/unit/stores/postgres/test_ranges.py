"""Halving a range loses no row and takes none twice."""

from hypothesis import given
from hypothesis import strategies as st

from housekeeping.stores.postgres.ranges import HeapRange, Tid

TIDS = st.builds(Tid, st.integers(0, 2**32 - 1), st.integers(0, 2_047))


@given(TIDS, TIDS)
def test_halves_are_disjoint_in_order_and_cover_the_whole(one: Tid, other: Tid) -> None:
    lower, upper = sorted([one, other])
    halves = HeapRange(lower, upper).halves()

    if upper.place - lower.place <= 1:
        assert halves == ()
        return
    first, second = halves
    assert (first.lower, second.upper) == (lower, upper)
    assert lower < first.upper == second.lower < upper


@given(TIDS, st.integers(1, 10_000))
def test_halving_ends_at_single_rows(start: Tid, length: int) -> None:
    end = Tid(*divmod(start.place + length, 2_048))
    piece, steps = HeapRange(start, end), 0
    while halves := piece.halves():
        piece, steps = halves[steps % 2], steps + 1

    assert piece.upper.place - piece.lower.place == 1
    assert steps < 20


@given(TIDS)
def test_a_place_is_read_as_it_is_written(place: Tid) -> None:
    assert Tid.parse(str(place)) == place


@given(TIDS, TIDS)
def test_places_are_ordered_as_in_the_heap(one: Tid, other: Tid) -> None:
    assert (one < other) == (one.place < other.place)
