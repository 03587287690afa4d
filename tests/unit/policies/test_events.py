"""The event stream: everybody hears, and nobody's failure harms a run."""

import logging
from dataclasses import fields

import pytest

from housekeeping.policies import events
from housekeeping.policies.events import Event, EventStream, RunStopped, WindowPassed, log_event

PASSED = WindowPassed(
    operation="tables.purge",
    policy="plain",
    run_id="1",
    window="(0,0) to (1,0)",
    cause="held",
    rows=1,
)
STOPPED = RunStopped(
    operation="tables.purge",
    policy="plain",
    run_id="1",
    stop_reason="exhausted",
    success=True,
    rows=1,
    batches=1,
    seconds=0.1,
)


def test_subscribers_hear_in_the_order_they_came_even_after_one_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard: list[str] = []

    def fails(event: Event) -> None:
        raise ValueError("a subscriber's own fault")

    stream = EventStream([lambda _: heard.append("a"), fails, lambda _: heard.append("b")])
    stream.publish(PASSED)

    assert heard == ["a", "b"]
    assert "a subscriber failed on housekeeping.window.passed" in caplog.text


def test_an_event_is_logged_under_one_key_that_collides_with_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG, "housekeeping"):
        log_event(PASSED)

    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.__dict__["event"]["name"] == "housekeeping.window.passed"
    assert record.__dict__["event"]["rows"] == 1


@pytest.mark.parametrize(("error", "level"), [("", logging.INFO), ("broken", logging.ERROR)])
def test_a_run_that_failed_is_logged_as_an_error(
    caplog: pytest.LogCaptureFixture, error: str, level: int
) -> None:
    facts = {each.name: getattr(STOPPED, each.name) for each in fields(STOPPED)}
    with caplog.at_level(logging.DEBUG, "housekeeping"):
        log_event(RunStopped(**{**facts, "error": error}))

    assert [record.levelno for record in caplog.records] == [level]


def test_every_event_has_a_name_of_its_own_that_the_modules_text_lists() -> None:
    names = [kind.NAME for kind in Event.__subclasses__()]

    assert len(set(names)) == len(names)
    assert all(name in (events.__doc__ or "") for name in names)
