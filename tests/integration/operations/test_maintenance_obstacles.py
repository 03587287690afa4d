"""Whoever stands in the way of a VACUUM, or would have to wait for it."""

from dataclasses import replace
from datetime import timedelta

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.policies.events import Event, EventStream, StepEnded
from housekeeping.policies.health import HealthLimits
from housekeeping.policies.maintenance import VacuumLimits
from housekeeping.policies.result import StopReason
from tests.conditions import wait_until
from tests.integration.database import Database
from tests.integration.upkeep import done, entry, policy_on, run, running

FILL = """
    CREATE TABLE events (id bigint PRIMARY KEY, note text) WITH (autovacuum_enabled = false);
    INSERT INTO events SELECT i, 'note ' || i FROM generate_series(1, 10000) i;
"""
VACUUMED = [("vacuum", "done"), ("analyze", "done")]


@pytest.fixture
def events(database: Database) -> Database:
    database.run(FILL)
    database.run("VACUUM ANALYZE events")
    return database


def test_whoever_holds_the_horizon_back_is_named(events: Database, around: Surroundings) -> None:
    with events.session() as user, user.cursor() as cursor:
        cursor.execute("SET application_name = 'a long report'")
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SELECT 1")
        events.run("DELETE FROM events WHERE id <= 3000")
        result = run(policy_on(events, "events", old_transaction=timedelta(0)), around)

    told = entry(result, "public.events")["actions"][0]
    assert told["outcome"] == "skipped"
    assert "3,000 dead rows stay: session" in told["told"]
    assert "a long report" in told["told"]
    assert any("a long report" in warning for warning in result.warnings)
    assert (result.stop_reason, result.success, result.total) == (StopReason.THROTTLED, False, 0)


def test_a_table_autovacuum_does_not_keep_up_with_is_told(
    events: Database, around: Surroundings
) -> None:
    events.run("DELETE FROM events WHERE id <= 9000")

    warnings = run(policy_on(events, "events"), around).warnings

    (told,) = [warning for warning in warnings if "does not keep up" in warning]
    assert "public.events: 9,000 dead rows, autovacuum is off for it" in told
    assert 'ALTER TABLE "public"."events" SET' in told


def test_a_locked_table_is_skipped_tried_again_at_the_end_and_then_no_success(
    events: Database, around: Surroundings
) -> None:
    events.run("DELETE FROM events WHERE id <= 3000")
    with events.session() as user, user.cursor() as cursor:
        cursor.execute("SET application_name = 'an index build'")
        cursor.execute("LOCK TABLE events IN SHARE MODE")
        result = run(policy_on(events, "events"), around)

    assert done(result, "public.events")[:2] == [("vacuum", "skipped"), ("vacuum", "skipped")]
    assert (
        "an index build holds a ShareLock" in entry(result, "public.events")["actions"][0]["told"]
    )
    assert (result.stop_reason, result.success) == (StopReason.THROTTLED, False)
    assert (
        events.one("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'events'") == 3_000
    )


@pytest.mark.parametrize("tables", [("events", "other"), ()], ids=["named", "all there are"])
def test_a_table_that_is_being_rewritten_keeps_no_other_from_its_turn(
    events: Database, around: Surroundings, tables: tuple[str, ...]
) -> None:
    events.run("CREATE TABLE other AS SELECT i AS id FROM generate_series(1, 10000) i")
    events.run("ALTER TABLE other SET (autovacuum_enabled = false)")
    events.run("DELETE FROM events WHERE id <= 3000; DELETE FROM other WHERE id <= 3000")
    with events.session() as user, user.cursor() as cursor:
        cursor.execute("ALTER TABLE other ALTER id TYPE bigint; LOCK TABLE other")
        result = run(policy_on(events, *tables), around)

    assert done(result, "public.events") == VACUUMED
    assert ("vacuum", "skipped") in done(result, "public.other")
    assert (result.stop_reason, result.success) == (StopReason.THROTTLED, False)


def test_a_table_that_is_free_again_at_the_end_is_done_then(
    events: Database, around: Surroundings
) -> None:
    events.run("DELETE FROM events WHERE id <= 3000")
    with events.session() as user, user.cursor() as cursor:
        cursor.execute("LOCK TABLE events IN SHARE MODE")

        def let_go(event: Event) -> None:
            if isinstance(event, StepEnded):
                user.rollback()

        listening = Surroundings(around.redis, events=EventStream([let_go]))
        result = run(policy_on(events, "events"), listening)

    assert done(result, "public.events") == [("vacuum", "skipped"), *VACUUMED]
    assert (result.success, result.total) == (True, 3_000)


def test_a_vacuum_gives_way_to_a_user_who_waits(events: Database, around: Surroundings) -> None:
    events.run("ALTER TABLE events SET (fillfactor = 10)")
    events.run("INSERT INTO events SELECT i, 'note ' || i FROM generate_series(10001, 60000) i")
    events.run("DELETE FROM events WHERE id <= 60000")
    slow = VacuumLimits(dead_rows=100, cost_limit=1)  # some 100 pages a second
    policy = policy_on(events, "events", vacuum_limits=slow, patience=timedelta(milliseconds=500))
    vacuuming = "SELECT count(*) FROM pg_stat_progress_vacuum WHERE datname = current_database()"
    with running(policy, around) as ours:
        wait_until(lambda: events.one(vacuuming), 10)
        begun = events.one("SELECT clock_timestamp()")
        events.run("SET lock_timeout = '20s'; ALTER TABLE events ADD COLUMN more int")
        waited = events.one("SELECT clock_timestamp()") - begun
        around.control.pause()  # no need to see the second try
        result = ours.result(60)

    assert waited < timedelta(seconds=5)
    first = entry(result, "public.events")["actions"][0]
    assert first["outcome"] == "yielded"
    assert "waited for us" in first["told"]


def test_a_run_heeds_its_time_budget_within_a_step(events: Database, around: Surroundings) -> None:
    events.run("INSERT INTO events SELECT i, 'note ' || i FROM generate_series(10001, 60000) i")
    events.run("DELETE FROM events WHERE id <= 60000")
    policy = policy_on(events, "events", vacuum_limits=VacuumLimits(dead_rows=100, cost_limit=1))
    hurried = replace(policy, pace=replace(policy.pace, time_budget=timedelta(seconds=1)))

    result = run(hurried, around)

    assert (result.stop_reason, result.success) == (StopReason.TIME_BUDGET, False)
    assert result.seconds < 10


def test_a_stopped_run_leaves_within_its_step(events: Database, around: Surroundings) -> None:
    events.run("INSERT INTO events SELECT i, 'note ' || i FROM generate_series(10001, 60000) i")
    events.run("DELETE FROM events WHERE id <= 60000")
    policy = policy_on(events, "events", vacuum_limits=VacuumLimits(dead_rows=100, cost_limit=1))
    vacuuming = "SELECT count(*) FROM pg_stat_progress_vacuum WHERE datname = current_database()"
    with running(policy, around) as ours:
        wait_until(lambda: events.one(vacuuming), 10)
        around.control.pause("tasks.database.maintain")
        result = ours.result(10)

    assert result.stop_reason is StopReason.PAUSED
    assert events.one(vacuuming) == 0


def test_two_runs_on_one_database_do_not_meet(events: Database, around: Surroundings) -> None:
    events.run("INSERT INTO events SELECT i, 'note ' || i FROM generate_series(10001, 60000) i")
    events.run("DELETE FROM events WHERE id <= 60000")
    policy = policy_on(events, "events", vacuum_limits=VacuumLimits(dead_rows=100, cost_limit=1))
    vacuuming = "SELECT count(*) FROM pg_stat_progress_vacuum WHERE datname = current_database()"
    with running(policy, around) as ours:
        wait_until(lambda: events.one(vacuuming), 10)
        second = run(policy_on(events, name="other"), around)
        around.control.pause()
        ours.result(10)

    assert (second.stop_reason, second.exit_code) == (StopReason.LOCKED, 3)


def test_an_unwell_database_is_left_alone(events: Database, around: Surroundings) -> None:
    events.run("DELETE FROM events WHERE id <= 3000")
    policy = policy_on(events, "events")
    unwell = HealthLimits(sql="SELECT 'the books are being closed'", patience=timedelta(0))

    result = run(replace(policy, pace=replace(policy.pace, health=unwell)), around)

    assert (result.stop_reason, result.success) == (StopReason.THROTTLED, False)
    assert "the books are being closed" in str(result.warnings)
    assert (
        events.one("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'events'") == 3_000
    )
