"""A run that was interrupted goes on under its own id; one that died is settled by the next."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.operations.records import past_runs
from housekeeping.policies.errors import RunInterrupted
from housekeeping.policies.result import StopReason
from housekeeping.stores.postgres.emptying import CHILD_ROWS
from tests.integration.database import Database
from tests.integration.runs import (
    DAYS,
    EXPIRED,
    SMALL_WINDOWS,
    AfterWindow,
    ledger_rows,
    listening,
    policy_on,
    run,
)

BOTH_WALKERS = pytest.mark.parametrize("walker", ["heap", "index"])
TERMINATE = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name LIKE 'hk:tables%'"
)


def fill(database: Database, expired: int = 5_000) -> None:
    database.run(
        "INSERT INTO events SELECT i, now() - interval '60 days' - i * interval '1 s'"
        " FROM generate_series(1, %s) i",
        expired,
    )
    database.run("INSERT INTO events VALUES (-1, now())")
    database.run("VACUUM ANALYZE events")


def interrupt(database: Database, around: Surroundings, walker: str, window: int = 1) -> UUID:
    """Begin a run, and end its backend after some window; return the run's id."""
    run_id = uuid4()
    policy = policy_on(database, pace=SMALL_WINDOWS)
    killer = AfterWindow(lambda: database.run(TERMINATE), window)
    with pytest.raises(RunInterrupted, match=str(run_id)):
        run(policy, listening(around, killer), walker=walker, run_id=run_id, will_retry=True)
    assert killer.outcome is None
    return run_id


@BOTH_WALKERS
@pytest.mark.parametrize("window", [1, 2])
def test_an_interrupted_run_goes_on_under_its_id_and_its_totals_are_exact(
    events: Database, around: Surroundings, walker: str, window: int
) -> None:
    fill(events)
    run_id = interrupt(events, around, walker, window)
    committed = ledger_rows(events)
    assert 0 < committed < 5_000

    result = run(policy_on(events, pace=SMALL_WINDOWS), around, walker=walker, run_id=run_id)

    assert (result.stop_reason, result.total, result.success) == (StopReason.EXHAUSTED, 5_000, True)
    assert events.column("SELECT id FROM events") == [-1]
    (past,) = past_runs([events.url], None, None, 10)
    assert (past["attempts"], past["total"]) == (2, 5_000)
    numbers = events.column("SELECT number FROM housekeeping.run_window ORDER BY 1")
    assert numbers == list(range(1, result.batches + 1))


@BOTH_WALKERS
def test_a_run_nobody_retries_ends_as_an_error_with_what_it_committed(
    events: Database, around: Surroundings, walker: str
) -> None:
    fill(events)
    killer = AfterWindow(lambda: events.run(TERMINATE))

    policy = policy_on(events, pace=SMALL_WINDOWS)
    result = run(policy, listening(around, killer), walker=walker)

    assert (result.stop_reason, result.exit_code) == (StopReason.ERROR, 1)
    assert result.total == ledger_rows(events) > 0
    assert result.error is not None
    assert run(policy, around).total == 5_000 - result.total


@BOTH_WALKERS
def test_a_resumed_run_keeps_to_the_limit_it_was_given(
    events: Database, around: Surroundings, walker: str
) -> None:
    fill(events)
    run_id = interrupt(events, around, walker)
    policy = policy_on(events, pace=SMALL_WINDOWS)

    result = run(policy, around, walker=walker, run_id=run_id, limit=1_000)

    assert result.total == 1_000
    assert events.count("events") == 4_001


@BOTH_WALKERS
def test_a_resumed_run_deletes_by_its_first_attempts_cutoffs(
    events: Database, around: Surroundings, walker: str
) -> None:
    fill(events)
    run_id = interrupt(events, around, walker)
    first = events.one("SELECT cutoffs->>'expired' FROM housekeeping.run")

    result = run(policy_on(events), around, walker=walker, run_id=run_id)

    assert result.cutoffs["expired"].isoformat() == first


@BOTH_WALKERS
def test_a_resumed_run_keeps_what_its_policy_keeps_by_now(
    events: Database, around: Surroundings, walker: str
) -> None:
    """Somebody saw that 30 days were a mistake, ended the worker and corrected it."""
    fill(events)
    run_id = interrupt(events, around, walker)
    gone = ledger_rows(events)
    longer = (replace(EXPIRED[0], keep_for=90 * DAYS),)

    result = run(policy_on(events, rules=longer), around, walker=walker, run_id=run_id)

    assert events.count("events") == 5_001 - gone
    assert (result.total, result.success) == (gone, True)
    assert result.cutoffs["expired"] < events.one("SELECT now() - interval '89 days'")


@BOTH_WALKERS
def test_a_resumed_run_takes_no_more_than_it_told_because_its_policy_keeps_less_by_now(
    events: Database, around: Surroundings, walker: str
) -> None:
    fill(events)
    run_id = interrupt(events, around, walker)
    first = events.one("SELECT cutoffs->>'expired' FROM housekeeping.run")
    shorter = (replace(EXPIRED[0], keep_for=timedelta(hours=1)),)

    result = run(policy_on(events, rules=shorter), around, walker=walker, run_id=run_id)

    assert result.cutoffs["expired"].isoformat() == first


@pytest.mark.parametrize("window", range(1, 6))
def test_an_index_walk_interrupted_around_a_bulk_load_leaves_none_of_it_out(
    events: Database, around: Surroundings, window: int
) -> None:
    """A key too many rows share is walked by blocks, after the window that ends just before it."""
    fill(events, 150)
    events.run(
        "INSERT INTO events SELECT i, now() - interval '55 days' FROM generate_series(1000, 61000) i"
    )
    events.run("VACUUM ANALYZE events")
    run_id = interrupt(events, around, "index", window)

    result = run(policy_on(events, pace=SMALL_WINDOWS), around, walker="index", run_id=run_id)

    assert events.column("SELECT id FROM events") == [-1]
    assert (result.total, result.success) == (60_151, True)


@BOTH_WALKERS
def test_a_run_interrupted_while_it_drains_children_still_takes_their_parent(
    events: Database, around: Surroundings, walker: str
) -> None:
    fill(events, 1)
    run_id = uuid4()
    policy = policy_on(events, pace=SMALL_WINDOWS)
    events.run(
        "CREATE TABLE logs (event bigint REFERENCES events ON DELETE CASCADE);"
        "CREATE INDEX ON logs (event)"
    )
    events.run("INSERT INTO logs SELECT 1 FROM generate_series(1, %s)", 2 * CHILD_ROWS + 9)
    events.run("VACUUM ANALYZE")
    killer = AfterWindow(
        lambda: events.run(TERMINATE), when=lambda: events.count("logs") <= CHILD_ROWS + 9
    )
    with pytest.raises(RunInterrupted):
        run(policy, listening(around, killer), walker=walker, run_id=run_id, will_retry=True)
    assert killer.outcome is None

    result = run(policy, around, walker=walker, run_id=run_id)

    assert events.column("SELECT id FROM events") == [-1]
    assert result.details == {"expired": 1, "logs": 2 * CHILD_ROWS + 9}


@BOTH_WALKERS
def test_a_row_that_stayed_is_told_once_however_often_its_window_is_walked(
    events: Database, around: Surroundings, walker: str
) -> None:
    fill(events)
    events.run(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF OLD.id = 1000 THEN RAISE 'not this one'; END IF; RETURN OLD; END $$;"
        "CREATE TRIGGER refuse BEFORE DELETE ON events FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    policy, run_id = policy_on(events, pace=SMALL_WINDOWS), uuid4()
    passed = "SELECT count(*) FROM housekeeping.run_window WHERE error IS NOT NULL"
    killer = AfterWindow(lambda: events.run(TERMINATE), when=lambda: events.one(passed) > 0)
    with pytest.raises(RunInterrupted):
        run(policy, listening(around, killer), walker=walker, run_id=run_id, will_retry=True)
    assert killer.outcome is None

    again = run(policy, around, walker=walker, run_id=run_id)

    assert sorted(events.column("SELECT id FROM events")) == [-1, 1000]
    assert (again.total, again.left_behind, again.success) == (4_999, 1, False)


def test_a_row_that_stayed_is_told_once_where_the_table_was_rewritten_meanwhile(
    events: Database, around: Surroundings
) -> None:
    """All of it is walked again, and the row is met in another place."""
    fill(events)
    events.run(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF OLD.id = 1000 THEN RAISE 'not this one'; END IF; RETURN OLD; END $$;"
        "CREATE TRIGGER refuse BEFORE DELETE ON events FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    policy, run_id = policy_on(events, pace=SMALL_WINDOWS), uuid4()
    beyond = (
        "SELECT count(*) FROM housekeeping.run_window WHERE done_to IS NOT NULL AND number >"
        " (SELECT min(number) FROM housekeeping.run_window WHERE error IS NOT NULL)"
    )
    rewrite = AfterWindow(
        lambda: events.run("VACUUM FULL events"), when=lambda: events.one(beyond) > 0
    )
    with pytest.raises(RunInterrupted, match="rewritten"):
        run(policy, listening(around, rewrite), walker="heap", run_id=run_id, will_retry=True)
    assert rewrite.outcome is None

    again = run(policy, around, walker="heap", run_id=run_id)

    assert sorted(events.column("SELECT id FROM events")) == [-1, 1000]
    assert (again.total, again.left_behind, again.success) == (4_999, 1, False)


@BOTH_WALKERS
def test_the_next_run_settles_the_row_of_one_that_died(
    events: Database, around: Surroundings, walker: str
) -> None:
    fill(events)
    dead = interrupt(events, around, walker)
    committed = ledger_rows(events)

    run(policy_on(events), around)

    past = {run["id"]: run for run in past_runs([events.url], None, None, 10)}
    assert (past[dead]["stop_reason"], past[dead]["success"]) == ("error", False)
    assert past[dead]["total"] == committed
    assert past[dead]["ended_at"] is not None
    assert sum(run["total"] for run in past.values()) == 5_000


@BOTH_WALKERS
def test_a_run_that_comes_back_after_it_was_settled_has_its_row_corrected(
    events: Database, around: Surroundings, walker: str
) -> None:
    """Its redelivery took longer than the next run on the schedule."""
    fill(events)
    late = interrupt(events, around, walker)
    run(policy_on(events, pace=replace(SMALL_WINDOWS, row_budget=10)), around)

    result = run(policy_on(events), around, walker=walker, run_id=late)

    assert events.count("events") == 1
    past = {run["id"]: run for run in past_runs([events.url], None, None, 10)}
    assert past[late]["total"] == result.total
    assert past[late]["stop_reason"] == result.stop_reason == StopReason.EXHAUSTED
    assert sum(run["total"] for run in past.values()) == ledger_rows(events) == 5_000
