"""A run gives way, slows down, keeps its hours, and shares what it knows with other runs."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from redis import Redis

from housekeeping.engine.run import Surroundings
from housekeeping.policies.events import Event, RunPaced, WindowShrunk
from housekeeping.policies.health import HealthLimits
from housekeeping.policies.pace import Pace
from housekeeping.policies.result import StopReason
from tests.conditions import wait_until
from tests.integration import partitions
from tests.integration.database import Database
from tests.integration.runs import (
    BRISK,
    SMALL_WINDOWS,
    AfterWindow,
    LeapingClock,
    hours_from_now,
    ledger_rows,
    listening,
    policy_on,
    run,
    running,
)

# Slow enough for a user to be seen waiting: a trigger sleeps for every tenth row.
_SLOW_DELETES = """
    CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN IF OLD.id % 10 = 0 THEN PERFORM pg_sleep(0.02); END IF; RETURN OLD; END';
    CREATE TRIGGER dawdle BEFORE DELETE ON events FOR EACH ROW EXECUTE FUNCTION dawdle()
"""
_NO_LONGER = """
    CREATE OR REPLACE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN RETURN OLD; END'
"""


def fill(database: Database, rows: int) -> None:
    database.run(
        "INSERT INTO events SELECT i, now() - interval '60 days', 'done'"
        " FROM generate_series(1, %s) i",
        rows,
    )
    database.run("VACUUM ANALYZE events")


def health(**limits: Any) -> Pace:
    return replace(BRISK, health=HealthLimits(**limits))


def test_a_window_somebody_waits_for_is_given_up_halved_and_done(
    events: Database, around: Surroundings
) -> None:
    fill(events, 2_000)
    events.run(_SLOW_DELETES)
    heard: list[Event] = []
    policy = policy_on(events, pace=health(yield_after=timedelta(milliseconds=300)))

    with running(policy, listening(around, heard.append)) as ours:
        wait_until(lambda: _deleting(events) or ours.done(), 10)
        begun = time.monotonic()
        with events.session() as user, user.cursor() as cursor:
            cursor.execute("SET application_name = 'checkout'")
            cursor.execute("SELECT FROM events WHERE id = 1 FOR UPDATE")
            waited = time.monotonic() - begun
            user.rollback()
        events.run(_NO_LONGER)
        result = ours.result(60)

    assert waited < 2  # the window alone takes 4 s
    assert (result.stop_reason, result.total) == (StopReason.EXHAUSTED, 2_000)
    shrunk = [event.cause for event in heard if isinstance(event, WindowShrunk)]
    assert any(
        cause.startswith("yielded to session ") and cause.endswith(" checkout, who waited for us")
        for cause in shrunk
    ), shrunk
    paced = [(e.signal, e.verdict) for e in heard if isinstance(e, RunPaced)]
    assert ("blocked_sessions", "slow") in paced
    assert result.waits["blocked_sessions"] > 0
    assert ledger_rows(events) == 2_000


def _deleting(database: Database) -> bool:
    """Whether a window of ours holds the rows it has not committed yet."""
    return bool(
        database.one(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%%housekeeping.purge.delete%%'"
            " AND application_name LIKE 'hk:tables%%' AND state = 'active'"
            " AND wait_event = 'PgSleep'"
        )
    )


def test_nobody_but_our_windows_is_cancelled(events: Database, around: Surroundings) -> None:
    """Who waits behind the table's own lock queue does not wait for us."""
    fill(events, 100)
    policy = policy_on(events, pace=health(yield_after=timedelta(milliseconds=50)))
    with events.session() as user, user.cursor() as cursor:
        cursor.execute("LOCK TABLE events IN SHARE ROW EXCLUSIVE MODE")
        with running(policy, around) as ours:
            wait_until(lambda: events.one(_WAITING_FOR_TABLE) or ours.done(), 10)
            user.rollback()
            result = ours.result(30)

    assert (result.stop_reason, result.total) == (StopReason.EXHAUSTED, 100)


_WAITING_FOR_TABLE = """
    SELECT count(*) FROM pg_stat_activity
    WHERE query LIKE '%housekeeping.%' AND application_name LIKE 'hk:tables%'
      AND pid <> pg_backend_pid()
"""


def test_a_users_own_query_stops_the_run_mid_way_and_lets_it_go_on(
    events: Database, around: Surroundings
) -> None:
    fill(events, 5_000)
    events.run("CREATE TABLE sale (reason text)")
    limits = HealthLimits(sql="SELECT 'stop: ' || reason FROM sale", patience=timedelta(seconds=20))
    policy = policy_on(events, pace=replace(SMALL_WINDOWS, health=limits, duty=0.1))
    heard: list[Event] = []
    begin_sale = AfterWindow(lambda: events.run("INSERT INTO sale VALUES ('summer sale')"))

    def hear(event: Event) -> None:
        heard.append(event)
        begin_sale(event)

    with running(policy, listening(around, hear)) as ours:
        wait_until(lambda: _paced(heard, "stop") or ours.done(), 20)
        assert 0 < events.count("events") < 5_000
        events.run("DELETE FROM sale")
        result = ours.result(30)

    assert (result.success, result.total) == (True, 5_000)
    assert any("for sql: summer sale" in told for told in result.warnings)


def _paced(heard: list[Event], verdict: str) -> bool:
    return any(isinstance(event, RunPaced) and event.verdict == verdict for event in heard)


def test_without_health_nothing_is_asked(events: Database, around: Surroundings) -> None:
    fill(events, 100)
    policy = policy_on(events, pace=health(enabled=False, sql="SELECT true"))

    assert run(policy, around).success


def test_a_dry_run_asks_nobody_and_keeps_no_hours(events: Database, around: Surroundings) -> None:
    fill(events, 100)
    closed = replace(health(sql="SELECT true"), only_between=hours_from_now(events, 60, 120))

    result = run(policy_on(events, pace=closed), around, dry_run=True)

    assert result.stop_reason is StopReason.DRY_RUN
    assert result.plan is not None
    assert result.plan["would_delete"] == 100


def test_two_runs_on_one_database_share_a_sample(
    events: Database, around: Surroundings, redis: Redis
) -> None:
    """The second run is told what the first has measured, be it wrong."""
    fill(events, 10)
    events.run("CREATE TABLE others AS SELECT * FROM events")
    policy = policy_on(events)
    with sample_kept(redis) as names:
        assert run(policy, around).success
        (name,) = names()
        text = redis.get(name)
        assert isinstance(text, bytes)
        redis.set(name, text.replace(b'"waiters": 0', b'"waiters": 5000'), px=60_000)
        second = replace(policy_on(events, "others"), name="second")
        impatient = replace(second, pace=health(patience=timedelta(0)))

        result = run(impatient, around)

    assert (result.stop_reason, result.total) == (StopReason.THROTTLED, 0)
    assert any("5000 sessions" in told for told in result.warnings)


@contextmanager
def sample_kept(redis: Redis) -> Iterator[Any]:
    """Yield what returns the names of the samples in Redis."""
    yield lambda: [name for name in redis.keys("housekeeping:health:*") if b"sampling" not in name]


def test_outside_of_its_hours_a_run_does_not_begin_and_says_when_it_may(
    events: Database, around: Surroundings
) -> None:
    fill(events, 100)
    pace = replace(BRISK, only_between=hours_from_now(events, 60, 120))

    result = run(policy_on(events, pace=pace), around)

    assert (result.stop_reason, result.total, result.batches) == (StopReason.THROTTLED, 0, 0)
    assert result.error is None
    assert any("it opens at " in told for told in result.warnings)
    assert events.count("events") == 100
    assert events.one("SELECT stop_reason FROM housekeeping.run") == "throttled"


def test_within_its_hours_a_run_goes_as_ever(events: Database, around: Surroundings) -> None:
    fill(events, 100)
    pace = replace(BRISK, only_between=hours_from_now(events, -60, 60))

    assert run(policy_on(events, pace=pace), around).total == 100


@pytest.mark.parametrize("health_asked", [True, False])
def test_a_run_leaves_between_two_windows_when_its_hours_end(
    events: Database,
    around: Surroundings,
    health_asked: bool,  # noqa: FBT001
) -> None:
    fill(events, 30_000)
    clock = LeapingClock()
    pace = replace(health(enabled=health_asked), only_between=hours_from_now(events, -60, 30))
    at_half_past = AfterWindow(lambda: setattr(clock, "ahead", 31 * 60.0))

    heard = listening(replace(around, clock=clock), at_half_past)
    result = run(policy_on(events, pace=pace), heard)

    assert result.stop_reason is StopReason.TIME_BUDGET
    assert result.batches == 1
    assert result.total == 30_000 - events.count("events")
    assert any("outside of only_between" in told for told in result.warnings)


def test_a_run_that_leaves_between_two_partitions_when_its_hours_end_says_so(
    database: Database, around: Surroundings
) -> None:
    partitions.partitioned(database)
    partitions.fill(database)
    clock = LeapingClock()
    pace = replace(BRISK, only_between=hours_from_now(database, -60, 30))
    at_half_past = AfterWindow(lambda: setattr(clock, "ahead", 31 * 60.0))

    heard = listening(replace(around, clock=clock), at_half_past)
    result = run(policy_on(database, pace=pace), heard)

    assert result.stop_reason is StopReason.TIME_BUDGET
    assert result.details["partitions_detached"] == 1
    assert any("outside of only_between" in told for told in result.warnings)
