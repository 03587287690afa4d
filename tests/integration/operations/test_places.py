"""Places on a database: runs wait for one, tell so, and leave when none falls free."""

from dataclasses import replace
from datetime import timedelta

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.policies.errors import RunInterrupted
from housekeeping.policies.events import Event, EventStream, RunWaiting
from housekeeping.policies.result import StopReason
from housekeeping.stores.postgres.connection import place
from housekeeping.stores.redis.semaphore import Place
from tests.conditions import wait_until
from tests.integration.database import Database
from tests.integration.runs import BRISK, policy_on, run, running


@pytest.fixture
def filled(events: Database) -> Database:
    events.run(
        "INSERT INTO events SELECT i, now() - interval '60 days' FROM generate_series(1, 100) i"
    )
    return events


@pytest.fixture
def taken(filled: Database, around: Surroundings) -> Place:
    """The only place there is."""
    ours = Place(around.redis, place(filled.url), "other", most=1, seconds=30)
    assert ours.take()
    return ours


def test_a_run_waits_for_a_place_and_says_so(
    filled: Database, around: Surroundings, taken: Place
) -> None:
    heard: list[Event] = []
    narrow = replace(around, workers_per_database=1, events=EventStream([heard.append]))

    with running(policy_on(filled), narrow) as ours:
        wait_until(lambda: any(isinstance(event, RunWaiting) for event in heard), 10)
        assert filled.count("events") == 100
        taken.give_back()
        result = ours.result(10)

    assert (result.success, result.total) == (True, 100)
    waiting = next(event for event in heard if isinstance(event, RunWaiting))
    assert waiting.cause.startswith("one of 1 places on 127.0.0.1")


def test_a_run_that_finds_no_place_in_its_time_is_throttled(
    filled: Database, around: Surroundings, taken: Place
) -> None:
    brief = replace(BRISK, time_budget=timedelta(seconds=1))
    result = run(policy_on(filled, pace=brief), replace(around, workers_per_database=1))
    taken.give_back()

    assert (result.stop_reason, result.success) == (StopReason.THROTTLED, False)
    assert (result.total, result.exit_code) == (0, 2)
    assert "places on 127.0.0.1" in result.warnings[-1]
    assert filled.one("SELECT stop_reason FROM housekeeping.run") == "throttled"


def test_a_run_that_waits_for_a_place_hears_a_stop(
    filled: Database, around: Surroundings, taken: Place
) -> None:
    heard: list[Event] = []
    narrow = replace(around, workers_per_database=1, events=EventStream([heard.append]))

    with running(policy_on(filled), narrow) as ours:
        wait_until(lambda: any(isinstance(event, RunWaiting) for event in heard), 10)
        around.control.pause()
        result = ours.result(10)
    taken.give_back()

    assert result.stop_reason is StopReason.PAUSED


def test_a_place_is_given_back_however_the_run_ends(filled: Database, around: Surroundings) -> None:
    narrow = replace(around, workers_per_database=1)
    filled.run(
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN OLD; END $$;"
        "CREATE TRIGGER die BEFORE DELETE ON events FOR EACH ROW EXECUTE FUNCTION die()"
    )
    with pytest.raises(RunInterrupted):
        run(policy_on(filled), narrow, will_retry=True)
    filled.run("DROP TRIGGER die ON events")

    result = run(policy_on(filled), narrow)

    assert (result.success, result.total) == (True, 100)
    assert around.redis.keys("{housekeeping:working:*") == []
