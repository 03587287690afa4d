"""How large the next window is: time decides."""

import math
import random
from collections.abc import Callable

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
    st.lists(
        st.tuples(
            st.integers(1, 10**6), st.floats(0, 100), st.integers(0, 10**6), st.floats(0, 100)
        )
    ),
)
def test_a_size_is_always_at_least_one_and_at_most_the_ceiling(
    start: int, windows: list[tuple[int, float, int, float]]
) -> None:
    size = WindowSize(start, TARGET, 1.0, ceiling=5_000)
    for units, seconds, rows, overhead in windows:
        size.took(units, seconds, rows, overhead=overhead)
        assert 1 <= size.current <= 5_000


def settle_far_away(size: WindowSize, overhead: float, told: float, windows: int = 60) -> float:
    """Do windows where each takes `overhead` whatever it holds; return what the last one took."""
    seconds = 0.0
    for _ in range(windows):
        units = size.current
        seconds = overhead + units / 100_000
        size.took(units, seconds, units, overhead=told)
    return seconds


@pytest.mark.parametrize("overhead", [0.01, 0.2, 0.3, 2.0])
def test_a_far_away_server_has_windows_worth_their_way(overhead: float) -> None:
    size = WindowSize(2_000, TARGET, 1.0)

    seconds = settle_far_away(size, overhead, overhead)

    assert seconds == pytest.approx(max(TARGET, overhead + TARGET / 2), rel=0.05)


def test_overhead_told_too_high_makes_windows_no_longer_than_it_allows() -> None:
    size = WindowSize(2_000, TARGET, 1.0)

    seconds = settle_far_away(size, 0.01, 0.2)

    assert seconds <= 0.2 + TARGET / 2 + 0.01


def test_a_single_window_told_to_be_all_overhead_hardly_matters() -> None:
    size = WindowSize(2_000, TARGET, 1.0)
    settle(size, 100_000)

    size.took(size.current, TARGET, size.current, overhead=TARGET)

    assert size.current <= 1.5 * 100_000 * TARGET + 1
    settle(size, 100_000)
    assert size.current == pytest.approx(100_000 * TARGET, rel=0.05)


@pytest.mark.parametrize("overhead", [0.01, 0.3, 2.0])
def test_what_nobody_measured_as_overhead_is_found_by_windows_of_other_sizes(
    overhead: float,
) -> None:
    size = WindowSize(2_000, TARGET, 1.0)

    seconds = settle_far_away(size, overhead, 0.0)

    assert seconds == pytest.approx(max(TARGET, overhead + TARGET / 2), rel=0.1)


def test_rows_that_grow_slower_and_slower_are_not_taken_for_fixed_time() -> None:
    size, longest = WindowSize(2_000, TARGET, 1.0), 0.0
    settle(size, 100_000)

    for window in range(200):
        seconds = size.current / (100_000 * 0.98**window)
        size.took(size.current, seconds, size.current)
        longest = max(longest, seconds)

    assert longest < 2 * TARGET


Server = Callable[[int, int], tuple[float, int]]
"""Takes a window's number and units; returns its seconds and rows."""


def seconds_of(server: Server, windows: int = 400, *, shrinking: float = 0.0) -> list[float]:
    """Do windows of 50 rows a unit; return what each took."""
    size, lasted, moments = WindowSize(40, TARGET, 50.0), [], random.Random(7)
    for window in range(windows):
        if moments.random() < shrinking:
            size.shrink()
        seconds, rows = server(window, size.current)
        seconds = (seconds + 0.004) * moments.uniform(0.9, 1.1)
        size.took(size.current, seconds, rows, overhead=0.004)
        lasted.append(seconds)
    return lasted


def slowed(factor: float) -> Server:
    return lambda window, units: (units / (2_000 if window < 100 else 2_000 / factor), 50 * units)


def wandering(window: int, units: int) -> tuple[float, int]:
    return units / (1_000 * math.exp(math.sin(window / 5))), 50 * units


def striped(share: float) -> Server:
    def server(window: int, units: int) -> tuple[float, int]:
        density = 1.0 if window // 10 % 2 else share
        return units / 20_000 + density * units / 1_000, int(density * units * 50)

    return server


@pytest.mark.parametrize("shrinking", [0.0, 0.02])
@pytest.mark.parametrize("factor", [3, 10, 30])
def test_on_a_server_that_became_slow_windows_shorten_again(
    factor: float, shrinking: float
) -> None:
    lasted = seconds_of(slowed(factor), shrinking=shrinking)

    assert max(lasted[200:]) < 1.5 * TARGET


@pytest.mark.parametrize("shrinking", [0.0, 0.02])
@pytest.mark.parametrize("server", [wandering, striped(0.0), striped(0.05), striped(0.4)])
def test_where_speed_or_density_changes_no_window_takes_many_times_its_target(
    server: Server, shrinking: float
) -> None:
    assert max(seconds_of(server, shrinking=shrinking)) < 5 * TARGET


@pytest.mark.parametrize("shrunk", [False, True])
def test_a_window_told_to_be_all_overhead_is_not_believed_before_another_was_measured(
    *, shrunk: bool
) -> None:
    size = WindowSize(2_000, TARGET, 1.0)
    if shrunk:
        settle(size, 50_000)
        size.shrink()
    units = size.current
    size.took(units, units / 50_000, units, overhead=units / 50_000)

    for _ in range(30):
        assert size.current / 50_000 < 4 * TARGET
        size.took(size.current, size.current / 50_000, size.current)


def test_far_away_too_the_last_small_window_of_a_walk_says_nothing() -> None:
    size = WindowSize(2_000, TARGET, 1.0)
    settle_far_away(size, 0.3, 0.3)
    before = size.current

    size.took(3, 0.3, 3, overhead=0.3)

    assert size.current == before
