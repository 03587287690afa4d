"""Maintenance windows: their edges, nights, weekdays, and the days on which clocks change."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from housekeeping.policies.hours import MaintenanceHours
from settings.hours import parse_hours

SECONDS = timedelta(seconds=1)
BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"


def hours(told: str, time_zone: str = "UTC") -> MaintenanceHours:
    return MaintenanceHours(parse_hours(told).openings, time_zone, told)


def at(told: str) -> datetime:
    return datetime.fromisoformat(told).replace(tzinfo=UTC)


@pytest.mark.parametrize("told", ["01:00-05:00", "22:00-05:00", "1:00 - 5:00", "05:00-01:00"])
@pytest.mark.parametrize("second", [-61, -59, -1, 0, 1, 59, 61])
def test_an_opening_holds_from_its_first_second_to_before_its_last(told: str, second: int) -> None:
    window = hours(told)
    first, last = window.openings[0].start, window.openings[0].end
    start = at(f"2026-03-10T{first:%H:%M}") + second * SECONDS
    end = at(f"2026-03-11T{last:%H:%M}") + second * SECONDS

    assert window.open_at(start) is (second >= 0)
    assert window.open_at(end) is (second < 0)


@pytest.mark.parametrize(
    ("moment", "is_open"),
    [
        ("2026-03-10T21:59:59", False),
        ("2026-03-10T22:00:00", True),
        ("2026-03-10T23:59:59", True),
        ("2026-03-11T00:00:00", True),
        ("2026-03-11T03:59:59", True),
        ("2026-03-11T04:00:00", False),
        ("2026-03-11T12:00:00", False),
    ],
)
def test_a_night_goes_on_over_midnight(moment: str, is_open: bool) -> None:  # noqa: FBT001
    assert hours("22:00-04:00").open_at(at(moment)) is is_open


@pytest.mark.parametrize(
    ("moment", "is_open"),
    [
        ("2026-03-13T23:00", True),  # a Friday
        ("2026-03-14T03:00", True),  # Friday's night goes on
        ("2026-03-14T12:00", True),  # Saturday, all day
        ("2026-03-15T23:59", True),
        ("2026-03-16T03:00", False),  # Sunday has no night of its own
        ("2026-03-16T22:00", True),
        ("2026-03-16T12:00", False),
    ],
)
def test_an_opening_belongs_to_the_day_it_starts_on(moment: str, is_open: bool) -> None:  # noqa: FBT001
    window = hours("mon-fri 22:00-04:00, sat-sun 00:00-24:00")

    assert window.open_at(at(moment)) is is_open


def test_days_go_round_the_end_of_the_week() -> None:
    (opening,) = hours("sat-mon 01:00-02:00").openings

    assert opening.days == {5, 6, 0}


@pytest.mark.parametrize(
    ("moment", "is_open"),
    [
        ("2026-01-15T23:59:59", False),  # 00:59:59 in winter
        ("2026-01-16T00:00:00", True),
        ("2026-07-15T22:59:59", False),  # 00:59:59 in summer
        ("2026-07-15T23:00:00", True),
        ("2026-07-16T02:59:59", True),
        ("2026-07-16T03:00:00", False),
    ],
)
def test_the_wall_clock_of_the_time_zone_counts(moment: str, is_open: bool) -> None:  # noqa: FBT001
    assert hours("01:00-05:00", BERLIN).open_at(at(moment)) is is_open


@pytest.mark.parametrize(
    ("told", "day", "minutes"),
    [
        ("01:00-05:00", "2026-03-28T12:00", 180),  # clocks go from 02:00 to 03:00
        ("01:00-05:00", "2026-10-24T12:00", 300),  # 02:00 to 03:00 comes twice
        ("02:15-02:45", "2026-03-28T12:00", 0),  # does not exist that night
        ("02:15-02:45", "2026-10-24T12:00", 60),  # is there twice
        ("02:30-05:00", "2026-03-28T12:00", 120),  # begins with the gap's end
        ("22:00-04:00", "2026-03-28T12:00", 300),
        ("00:00-24:00", "2026-03-28T12:00", 1440),
    ],
)
def test_nights_in_which_clocks_change_are_as_long_as_the_wall_clock_says(
    told: str, day: str, minutes: int
) -> None:
    window = hours(told, BERLIN)
    noon = at(day) - timedelta(hours=1)

    found = sum(window.open_at(noon + timedelta(minutes=minute)) for minute in range(24 * 60))

    assert found == minutes


@pytest.mark.parametrize(
    ("told", "time_zone", "moment", "opens"),
    [
        ("01:00-05:00", "UTC", "2026-03-10T12:00:30", "2026-03-11T01:00"),
        ("01:00-05:00", BERLIN, "2026-03-28T12:00", "2026-03-29T00:00"),
        ("02:30-05:00", BERLIN, "2026-03-28T12:00", "2026-03-29T01:00"),  # 03:00, the gap's end
        ("02:30-05:00", NEW_YORK, "2026-03-08T00:00", "2026-03-08T07:00"),
        ("02:15-02:45", BERLIN, "2026-03-28T12:00", "2026-03-30T00:15"),
        ("sun 01:00-02:00", "UTC", "2026-03-09T12:00", "2026-03-15T01:00"),
        ("sun 01:00-02:00", "UTC", "2026-03-15T02:00", "2026-03-22T01:00"),
    ],
)
def test_the_next_opening_is_told(told: str, time_zone: str, moment: str, opens: str) -> None:
    window = hours(told, time_zone)

    assert window.next_opening(at(moment)) == at(opens)
    assert f"outside of only_between {told} ({time_zone}); it opens at " in window.opens(at(moment))


@given(
    st.integers(0, 366 * 24 * 3600),
    st.sampled_from(["01:00-05:00", "22:00-04:00", "mon-fri 23:30-00:30", "12:00-11:59"]),
    st.sampled_from(["UTC", BERLIN, NEW_YORK, "Australia/Lord_Howe", "Asia/Kathmandu"]),
)
def test_what_is_called_the_next_opening_is_open_and_the_minute_before_is_not(
    second: int, told: str, time_zone: str
) -> None:
    window, moment = hours(told, time_zone), at("2026-01-01") + second * SECONDS
    opening = window.next_opening(moment)

    assert opening is not None
    assert window.open_at(opening)
    if not window.open_at(moment):
        assert not window.open_at(opening - SECONDS)
