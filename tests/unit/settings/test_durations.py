from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settings.durations import LONGEST, format_duration, parse_duration

ACCEPTED = [
    ("30d", timedelta(days=30)),
    ("12h", timedelta(hours=12)),
    ("5m", timedelta(minutes=5)),
    ("90s", timedelta(seconds=90)),
    ("200ms", timedelta(milliseconds=200)),
    ("5ms", timedelta(milliseconds=5)),
    ("2w", timedelta(weeks=2)),
    ("1d12h", timedelta(days=1, hours=12)),
    ("1d 12h", timedelta(days=1, hours=12)),
    (" 1w1d1h1m1s1ms ", timedelta(8, 3661, milliseconds=1)),
    ("1.5h", timedelta(minutes=90)),
    ("P30D", timedelta(days=30)),
    ("PT12H", timedelta(hours=12)),
    ("PT5M", timedelta(minutes=5)),
    ("PT0.25S", timedelta(milliseconds=250)),
    ("P1DT2H", timedelta(days=1, hours=2)),
    ("P2W", timedelta(weeks=2)),
    ("90", timedelta(seconds=90)),
    (90, timedelta(seconds=90)),
    (0.25, timedelta(milliseconds=250)),
    (0, timedelta(0)),
    ("0s", timedelta(0)),
    (timedelta(days=3), timedelta(days=3)),
    ("36500d", LONGEST),
]
REFUSED = [
    ("30 dayz", "give a number and a unit"),
    ("", "give a number and a unit"),
    ("d", "give a number and a unit"),
    ("30D", "give a number and a unit"),
    ("1h1d", "give a number and a unit"),
    ("1d1d", "give a number and a unit"),
    ("1e3", "give a number and a unit"),
    ("٣d", "give a number and a unit"),
    ("nan", "give a number and a unit"),
    ("inf", "give a number and a unit"),
    ("P", "give a number and a unit"),
    ("PT", "give a number and a unit"),
    ("P1DT", "give a number and a unit"),
    (float("nan"), "give a number and a unit"),
    (float("inf"), "give a number and a unit"),
    (True, "give a number and a unit"),
    (None, "give a number and a unit"),
    ([30], "give a number and a unit"),
    ("-5d", "can't be negative"),
    ("-P5D", "can't be negative"),
    (-1, "can't be negative"),
    (-0.5, "can't be negative"),
    (timedelta(days=-1), "can't be negative"),
    ("P1Y", "years and months have no fixed length"),
    ("P1M", "years and months have no fixed length"),
    ("P1Y2M3DT4H", "years and months have no fixed length"),
    ("36501d", "over 36,500 days"),
    ("9" * 400 + "d", "over 36,500 days"),
    (10**400, "over 36,500 days"),
    (1e300, "over 36,500 days"),
]


@pytest.mark.parametrize(("text", "meant"), ACCEPTED)
def test_a_duration_is_read_as_it_is_written(text: object, meant: timedelta) -> None:
    assert parse_duration(text) == meant


@pytest.mark.parametrize(("text", "told"), REFUSED)
def test_what_is_no_duration_is_refused_and_says_what_to_give(text: object, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_duration(text)


@given(st.timedeltas(min_value=timedelta(0), max_value=LONGEST))
def test_what_is_shown_can_be_read_back_exactly(duration: timedelta) -> None:
    assert parse_duration(format_duration(duration)) == duration


@given(st.text(max_size=20))
def test_any_text_is_a_duration_within_a_century_or_refused(text: str) -> None:
    try:
        duration = parse_duration(text)
    except ValueError:
        return
    assert timedelta(0) <= duration <= LONGEST
