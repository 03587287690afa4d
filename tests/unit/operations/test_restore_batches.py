"""Rows of an export that were put back before are passed over, wherever they lie."""

from hypothesis import given
from hypothesis import strategies as st

from housekeeping.operations.archives.restoring import Batch


@given(
    first=st.integers(0, 30),
    count=st.integers(0, 30),
    done=st.sets(st.integers(0, 70)),
)
def test_what_is_left_is_what_no_range_holds(first: int, count: int, done: set[int]) -> None:
    batch = Batch(first, tuple((str(place),) for place in range(first, first + count)))
    ranges: list[tuple[int, int]] = []
    for place in sorted(done):
        if ranges and ranges[-1][1] == place:
            ranges[-1] = (ranges[-1][0], place + 1)
        else:
            ranges.append((place, place + 1))

    left = batch.outside(ranges)

    for each in left:
        assert [row[0] for row in each.rows] == [str(p) for p in range(each.first, each.end)]
    found = [int(row[0] or "") for each in left for row in each.rows]
    assert found == [place for place in range(first, first + count) if place not in done]
