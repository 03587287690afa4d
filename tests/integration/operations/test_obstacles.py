"""What stands in a run's way by the table, not by the row."""

from dataclasses import replace

import pytest

from housekeeping.engine.run import Request, Surroundings
from housekeeping.operations.purge import purge
from housekeeping.policies.errors import PolicyRefused
from housekeeping.policies.result import StopReason
from tests.conditions import wait_until
from tests.integration.database import Database
from tests.integration.runs import (
    BRISK,
    SMALL_WINDOWS,
    AfterWindow,
    listening,
    policy_on,
    run,
    running,
)

FILL = """
    CREATE TABLE events (id bigint PRIMARY KEY, created_at timestamptz);
    INSERT INTO events SELECT i, now() - interval '60 days' FROM generate_series(1, 5000) i;
    INSERT INTO events SELECT i, now() FROM generate_series(5001, 5010) i;
"""


@pytest.fixture
def events(database: Database) -> Database:
    database.run(FILL)
    return database


def test_a_table_that_is_rewritten_mid_walk_is_no_success_and_the_next_run_does_the_rest(
    events: Database, around: Surroundings
) -> None:
    policy = policy_on(events, pace=SMALL_WINDOWS)
    rewrite = AfterWindow(lambda: events.run("VACUUM FULL events"), 2)

    first = run(policy, listening(around, rewrite), walker="heap")
    second = run(policy, around, walker="heap")

    assert (first.stop_reason, first.success) == (StopReason.ERROR, False)
    assert first.error is not None
    assert "was rewritten" in first.error
    assert first.total + second.total == 5_000
    assert second.success


def test_rows_that_an_update_moves_behind_the_end_still_go(
    events: Database, around: Surroundings
) -> None:
    policy = policy_on(events, pace=SMALL_WINDOWS)
    touch = AfterWindow(
        lambda: events.run(
            "UPDATE events SET created_at = created_at WHERE id BETWEEN 3000 AND 4000"
        )
    )

    result = run(policy, listening(around, touch), walker="heap")

    assert (result.total, result.success) == (5_000, True)


def test_an_index_that_is_being_built_is_waited_for_and_no_row_is_blamed(
    events: Database, around: Surroundings
) -> None:
    policy = policy_on(events, pace=BRISK)
    with events.session() as user, user.cursor() as cursor:
        cursor.execute("LOCK TABLE events IN SHARE MODE")
        with running(policy, around) as ours:
            wait_until(lambda: events.one("SELECT count(*) FROM pg_locks WHERE NOT granted"), 10)
            user.rollback()
            result = ours.result(30)

    assert (result.total, result.left_behind, result.success) == (5_000, 0, True)


def test_a_deferred_constraint_is_heard_before_the_commit(
    events: Database, around: Surroundings
) -> None:
    events.run(
        "CREATE TABLE bills (event bigint REFERENCES events DEFERRABLE INITIALLY DEFERRED);"
        "CREATE INDEX ON bills (event);"
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'not this one'; END $$;"
        "CREATE CONSTRAINT TRIGGER late AFTER DELETE ON events DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW WHEN (OLD.id = 77) EXECUTE FUNCTION refuse()"
    )

    result = run(policy_on(events), around)

    assert events.column("SELECT id FROM events WHERE id <= 5000") == [77]
    assert (result.total, result.left_behind, result.success) == (4_999, 1, False)


def test_a_trigger_that_may_keep_rows_whose_children_would_be_gone_is_refused(
    events: Database, around: Surroundings
) -> None:
    events.run(
        "CREATE TABLE logs (event bigint REFERENCES events ON DELETE CASCADE);"
        "CREATE INDEX ON logs (event); INSERT INTO logs SELECT id FROM events;"
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
        "CREATE TRIGGER hold BEFORE DELETE ON events FOR EACH ROW EXECUTE FUNCTION keep()"
    )

    with pytest.raises(PolicyRefused, match="trigger hold may keep rows"):
        run(policy_on(events), around)

    assert events.count("logs") == 5_010


def test_a_run_taken_up_again_tells_its_committed_rows_even_when_it_stops_at_once(
    events: Database, around: Surroundings
) -> None:
    policy = policy_on(events, pace=SMALL_WINDOWS)
    asked = Request(run_by="tester@here")
    first = purge(replace(policy, pace=replace(SMALL_WINDOWS, row_budget=500)), asked, around)
    events.run("UPDATE housekeeping.run SET ended_at = NULL, result = NULL")  # as if it had died
    around.control.pause()

    again = purge(policy, asked, around)

    assert first.total == again.total == 500
    assert again.stop_reason is StopReason.PAUSED
