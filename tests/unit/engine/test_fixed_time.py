"""What a window takes whatever it holds."""

import random

import pytest

from housekeeping.engine.fixed_time import FixedTime


def test_windows_of_two_sizes_tell() -> None:
    fixed = FixedTime()

    fixed.learn(100, 0.3)
    fixed.learn(200, 0.4)

    assert fixed.seconds == pytest.approx(0.2)


def test_windows_of_one_size_tell_nothing() -> None:
    fixed = FixedTime()

    for _ in range(20):
        fixed.learn(100, 0.3)

    assert fixed.seconds == 0


def test_what_was_found_is_kept_while_sizes_stay_the_same() -> None:
    fixed = FixedTime()
    fixed.learn(100, 0.3)
    fixed.learn(200, 0.4)

    for _ in range(50):
        fixed.learn(1_000, 1.2)

    assert fixed.seconds == pytest.approx(0.2, rel=0.1)


def test_nothing_fixed_takes_longer_than_the_shortest_window_ever_did() -> None:
    fixed = FixedTime()

    fixed.learn(400, 0.01)
    for units in (400, 200, 100, 50, 25):  # smaller for being slow
        fixed.learn(units, 0.5)

    assert fixed.seconds == pytest.approx(0.01)


def test_a_line_through_nothing_has_no_fixed_time() -> None:
    fixed = FixedTime()

    fixed.learn(100, 0.1)
    fixed.learn(300, 0.4)

    assert fixed.seconds == 0


def test_uneven_times_are_seen_through() -> None:
    moments, fixed = random.Random(7), FixedTime()

    for _ in range(100):
        units = moments.randrange(100, 1_000)
        fixed.learn(units, (0.2 + units / 5_000) * moments.uniform(0.9, 1.1))

    assert fixed.seconds == pytest.approx(0.2, rel=0.3)
