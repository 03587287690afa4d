"""Windows forecast: their number and time, by the rules that size real ones."""

import pytest

from housekeeping.engine.price.forecasting import WINDOW_SECONDS, Stretch, forecast
from housekeeping.policies.pace import Pace

BRISK = Pace(duty=1.0)


def test_nothing_to_do_takes_no_window() -> None:
    told = forecast([Stretch.over(0, 0, 0)], 1.0, BRISK, 2_000)

    assert (told.batches, told.worked_seconds, told.rest_seconds) == (0, 0, 0)


def test_settled_windows_take_their_target() -> None:
    told = forecast([Stretch.over(10_000_000, 100.0, 10_000_000)], 1.0, BRISK, 2_000)

    assert told.worked_seconds == pytest.approx(100 + told.batches * WINDOW_SECONDS)
    assert told.worked_seconds / told.batches == pytest.approx(0.25, rel=0.1)


def test_a_long_way_is_told_without_walking_all_of_it() -> None:
    told = forecast([Stretch.over(1e12, 1e7, 1e12)], 1.0, BRISK, 2_000)

    assert told.worked_seconds == pytest.approx(1e7, rel=0.05)
    assert told.batches == pytest.approx(4e7, rel=0.1)


def test_windows_are_no_larger_than_their_children_allow() -> None:
    told = forecast([Stretch.over(100_000, 0.1, 100_000)], 1.0, BRISK, 2_000, ceiling=1_000)

    assert told.batches == 100


def test_a_long_window_does_not_earn_a_rest_of_minutes() -> None:
    told = forecast([Stretch.over(1, 60, 1)], 1.0, Pace(duty=0.01), 1)

    assert told.rest_seconds == 5


def test_a_page_that_is_hardly_touched_and_takes_long_is_told_too() -> None:
    slow, rest = Stretch(0.5, 1.0, 1.0), Stretch(1_000, 0.001, 50.0)

    assert forecast([slow, rest], 50.0, BRISK, 1).batches > 1
