from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settings.durations import LONGEST, format_duration, parse_duration
from tests.unit.settings.conftest import REQUIRED, Load

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


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("30", ('keep_for = 30 means 30 seconds; write "30d" for days',)),
        ('"30"', ('keep_for = 30 means 30 seconds; write "30d" for days',)),
        ("0.5", ('keep_for = 0.5 means 0.5 seconds; write "0.5d" for days',)),
        ("3599", ('keep_for = 3599 means 3599 seconds; write "3599d" for days',)),
        ("3600", ()),
        ("2592000", ()),
        ('"30s"', ()),
        ('"PT30S"', ()),
        ('"30d"', ()),
    ],
)
def test_a_bare_number_of_seconds_that_looks_like_days_is_doubted(
    load: Load, written: str, told: tuple[str, ...]
) -> None:
    text = f'{REQUIRED}[tables.x]\ntable = "x"\nage = "at"\nkeep_for = {written}\n'

    (policy,) = load(text).all_policies()

    assert policy.doubts == told


def test_a_status_written_as_a_bare_number_is_doubted_by_its_name(load: Load) -> None:
    text = (
        f'{REQUIRED}[tables.x]\ntable = "x"\nage = "at"\nstatus_column = "s"\n'
        'statuses = {done = 30, failed = "30d"}\n'
    )
    (policy,) = load(text, {"HOUSEKEEPING__SPLAY": "5"}).all_policies()
    assert policy.doubts == ('statuses.done = 30 means 30 seconds; write "30d" for days',)


def test_a_bare_number_in_the_environment_is_doubted_too(load: Load) -> None:
    text = f'{REQUIRED}[tables.x]\ntable = "x"\nage = "at"\nkeep_for = "30d"\n'
    suite = load(text, {"HOUSEKEEPING__TABLES__X__KEEP_FOR": "14"})
    assert suite.all_policies()[0].doubts == (
        'keep_for = 14 means 14 seconds; write "14d" for days',
    )
    assert suite.describe()["tables"]["x"]["keep_for"] == "14s"


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
