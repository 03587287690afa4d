"""How large the next window is: time decides."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from housekeeping.engine.sizing import WindowSize

TARGET = 0.25


def settle(size: WindowSize, rows_a_second: float, windows: int = 60) -> None:
    """Do windows on a server of a steady speed, where every row goes."""
    for _ in range(windows):
        units = size.current
        size.took(units, units / rows_a_second, units)


@pytest.mark.parametrize("start", [1, 2_000, 900_000])
@pytest.mark.parametrize("speed", [1_000, 100_000, 1_000_000])
def test_windows_grow_or_shrink_to_their_target_time(start: int, speed: int) -> None:
    size = WindowSize(start, TARGET, 1.0)

    settle(size, speed)

    assert size.current == pytest.approx(speed * TARGET, rel=0.05)


def test_a_window_that_did_not_fit_halves_the_next_one() -> None:
    size = WindowSize(2_000, TARGET, 1.0)

    size.shrink()

    assert size.current == 1_000


def test_shrinking_ends_at_one_and_grows_back() -> None:
    size = WindowSize(2_000, TARGET, 1.0)
    for _ in range(30):
        size.shrink()
    assert size.current == 1

    settle(size, 100_000)

    assert size.current == pytest.approx(100_000 * TARGET, rel=0.05)


def test_the_last_small_window_of_a_walk_does_not_make_the_next_walk_small() -> None:
    size = WindowSize(2_000, TARGET, 1.0)
    settle(size, 100_000)
    before = size.current

    size.took(3, 0.001, 3)

    assert size.current == before


def test_after_a_stretch_where_nothing_expired_a_window_is_still_safe_to_delete_whole() -> None:
    size = WindowSize(2_000, TARGET, 1.0)
    settle(size, 100_000)

    for _ in range(50):
        size.took(size.current, size.current / 10_000_000, 0)

    assert size.current <= 2 * 100_000 * TARGET


@given(
    st.integers(1, 10**7),
    st.lists(st.tuples(st.integers(1, 10**6), st.floats(0, 100), st.integers(0, 10**6))),
)
def test_a_size_is_always_at_least_one_and_at_most_the_ceiling(
    start: int, windows: list[tuple[int, float, int]]
) -> None:
    size = WindowSize(start, TARGET, 1.0, ceiling=5_000)
    for units, seconds, rows in windows:
        size.took(units, seconds, rows)
        assert 1 <= size.current <= 5_000
