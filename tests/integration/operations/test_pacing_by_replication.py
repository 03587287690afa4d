"""A real standby that falls behind holds a run up; the run goes on by itself when it has caught up."""

import re
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from datetime import timedelta

import pytest
from redis import Redis

from embedded.postgresql import PostgresServer
from embedded.standby import StandbyServer
from housekeeping.engine.run import Surroundings
from housekeeping.policies.events import Event, RunPaced, RunWaiting, WindowCommitted
from housekeeping.policies.health import HealthLimits
from housekeeping.policies.purge import PurgePolicy
from housekeeping.policies.result import RunResult, StopReason
from housekeeping.stores.redis.control import Control
from tests.conditions import wait_until
from tests.integration.database import Database
from tests.integration.runs import SMALL_WINDOWS, AfterWindow, listening, policy_on, run, running

NAME = "reports"
MB = 1024 * 1024
# More than a whole run here writes, so that a busy machine alone stops nobody.
LIMITS = HealthLimits(
    max_replication_bytes=8 * MB, expected_standbys=(NAME,), patience=timedelta(seconds=40)
)


@pytest.fixture(scope="module")
def standby(postgres: PostgresServer) -> Iterator[StandbyServer]:
    with StandbyServer(postgres, NAME) as server:
        yield server


@pytest.fixture(autouse=True)
def caught_up(standby: StandbyServer, postgres: PostgresServer) -> Iterator[None]:
    yield
    standby.resume_replay()
    server = Database(postgres.url(), postgres.installation.version)
    wait_until(lambda: _bytes_behind(server) == 0, 30)


def policy(database: Database, **limits: object) -> PurgePolicy:
    pace = replace(SMALL_WINDOWS, health=replace(LIMITS, **limits))  # type: ignore[arg-type]
    return policy_on(database, pace=pace)


def fill(database: Database, rows: int = 20_000) -> None:
    database.run(
        "INSERT INTO events SELECT i, now() - interval '60 days', 'done'"
        " FROM generate_series(1, %s) i",
        rows,
    )
    database.run("VACUUM ANALYZE events")
    wait_until(lambda: _bytes_behind(database) < MB, 30)


def _bytes_behind(database: Database) -> int:
    query = (
        "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn) FROM pg_stat_replication"
        " WHERE application_name = %s"
    )
    return int(database.one(query, NAME))


def lag(database: Database, standby: StandbyServer) -> None:
    """Have the standby stand still, far behind."""
    standby.pause_replay()
    database.run("SELECT pg_logical_emit_message(true, 'test', repeat('x', %s))", 16 * MB)
    assert _bytes_behind(database) > LIMITS.max_replication_bytes


class Heard:
    """The events of a run, in order."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def waits(self) -> list[RunWaiting]:
        return [event for event in self.events if isinstance(event, RunWaiting)]

    def windows(self) -> int:
        return sum(isinstance(event, WindowCommitted) for event in self.events)

    def wait_until_it_waits(self, ours: Future[RunResult]) -> None:
        wait_until(lambda: self.waits() or ours.done(), 20)
        assert not ours.done(), ours.result()


def test_a_standby_that_falls_behind_stops_the_run_within_two_windows_until_it_catches_up(
    events: Database, around: Surroundings, standby: StandbyServer
) -> None:
    fill(events)
    heard = Heard()
    fall_behind = AfterWindow(lambda: (lag(events, standby), heard.windows()), window=5)

    def hear(event: Event) -> None:
        heard(event)
        fall_behind(event)

    with running(policy(events), listening(around, hear)) as ours:
        heard.wait_until_it_waits(ours)
        stopped_at = heard.windows()
        assert stopped_at - fall_behind.outcome[1] <= 2
        assert events.count("events") > 0
        wait_until(lambda: len(heard.waits()) >= 2, 10)
        assert heard.windows() == stopped_at
        standby.resume_replay()
        result = ours.result(30)

    assert (result.stop_reason, result.success) == (StopReason.EXHAUSTED, True)
    assert (result.total, events.count("events")) == (20_000, 0)


def test_what_was_waited_for_is_told_in_progress_events_result_and_ledger(
    events: Database, around: Surroundings, standby: StandbyServer
) -> None:
    fill(events, 100)
    lag(events, standby)
    heard = Heard()

    with running(policy(events), listening(around, heard)) as ours:
        wait_until(lambda: len(heard.waits()) >= 3, 20)
        standby.resume_replay()
        result = ours.result(30)

    assert "standby reports is " in heard.waits()[0].cause
    assert result.phases.wait >= result.waits["replication_lag"] >= 1
    assert any("for replication_lag: standby reports is" in told for told in result.warnings)
    paced = [(e.signal, e.verdict) for e in heard.events if isinstance(e, RunPaced)]
    assert paced[0] == ("replication_lag", "stop")
    assert paced[-1] == ("replication_lag", "go")
    kept = events.one("SELECT result FROM housekeeping.run")
    assert kept["waits"] == result.waits


def test_a_run_does_not_begin_to_delete_while_a_standby_is_behind(
    events: Database, around: Surroundings, standby: StandbyServer
) -> None:
    fill(events, 100)
    lag(events, standby)

    result = run(policy(events, patience=timedelta(seconds=1)), around)

    assert (result.stop_reason, result.total, result.success) == (StopReason.THROTTLED, 0, False)
    assert re.search(
        r"ended after 1 s of waiting: standby reports is \d+ [kM]B", result.warnings[-1]
    ), result.warnings
    assert events.count("events") == 100


def test_stop_is_honoured_inside_the_wait(
    events: Database, around: Surroundings, standby: StandbyServer, redis: Redis
) -> None:
    fill(events, 100)
    lag(events, standby)
    heard = Heard()

    with running(policy(events), listening(around, heard)) as ours:
        heard.wait_until_it_waits(ours)
        Control(redis).stop(heard.events[0].run_id)
        result = ours.result(2)

    assert (result.stop_reason, result.total) == (StopReason.STOPPED, 0)


def test_pause_is_honoured_inside_the_wait(
    events: Database, around: Surroundings, standby: StandbyServer, redis: Redis
) -> None:
    fill(events, 100)
    lag(events, standby)
    heard = Heard()

    with running(policy(events), listening(around, heard)) as ours:
        heard.wait_until_it_waits(ours)
        Control(redis).pause()
        result = ours.result(2)

    assert result.stop_reason is StopReason.PAUSED


def test_the_time_budget_bounds_the_wait(
    events: Database, around: Surroundings, standby: StandbyServer
) -> None:
    fill(events, 100)
    lag(events, standby)
    short = policy(events)
    short = replace(short, pace=replace(short.pace, time_budget=timedelta(seconds=1)))

    result = run(short, around)

    assert (result.stop_reason, result.total) == (StopReason.THROTTLED, 0)
    assert result.seconds < 5


def test_an_expected_standby_that_is_missing_stops_the_run(
    events: Database, around: Surroundings, standby: StandbyServer
) -> None:
    fill(events, 100)
    missing = policy(
        events, expected_standbys=(NAME, "mirror"), patience=timedelta(milliseconds=100)
    )

    result = run(missing, around)

    assert (result.stop_reason, result.total) == (StopReason.THROTTLED, 0)
    assert any("standby mirror is expected and not connected" in told for told in result.warnings)


def test_a_lag_that_is_hidden_from_our_role_stops_the_run_until_it_may_see_it(
    events: Database, around: Surroundings, standby: StandbyServer
) -> None:
    fill(events, 100)
    events.run(
        "DROP ROLE IF EXISTS blind; CREATE ROLE blind LOGIN; GRANT ALL ON events TO blind;"
        "GRANT CREATE ON DATABASE " + events.url.rpartition("/")[2] + " TO blind"
    )
    blind = replace(events, url=events.url.replace("postgres@", "blind@"))
    try:
        result = run(policy(blind, patience=timedelta(milliseconds=100)), around)
        assert (result.stop_reason, result.total) == (StopReason.THROTTLED, 0)
        (told,) = [told for told in result.warnings if told.startswith("ended after")]
        assert "the lag of standby reports can't be told" in told
        assert "GRANT pg_monitor TO blind" in told

        events.run("GRANT pg_monitor TO blind")
        assert run(policy(blind), around).total == 100
    finally:
        events.run("DROP OWNED BY blind; DROP ROLE blind")


def test_a_standby_that_is_to_be_ignored_holds_nobody_up(
    events: Database, around: Surroundings, standby: StandbyServer
) -> None:
    fill(events, 100)
    lag(events, standby)

    result = run(policy(events, expected_standbys=(), ignored_standbys=(NAME,)), around)

    assert (result.success, result.total) == (True, 100)
