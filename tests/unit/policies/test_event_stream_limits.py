"""A time limit fires wherever it finds us, also inside a subscriber."""

import pytest

from housekeeping.policies.events import Event, EventStream


class TimeIsUp(Exception):
    pass


def strike(_: Event) -> None:
    raise TimeIsUp


EVENT = Event(operation="tables.purge", policy="events", run_id="1")


def test_an_exception_that_is_not_the_subscribers_own_goes_up() -> None:
    with pytest.raises(TimeIsUp):
        EventStream([strike], passing=(TimeIsUp,)).publish(EVENT)


def test_any_other_is_logged_and_the_run_goes_on() -> None:
    EventStream([strike]).publish(EVENT)
