"""A dry run tells what a real one does next, and leaves no trace."""

from dataclasses import replace

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.policies.errors import ConfigurationRefused
from housekeeping.policies.purge import KeptBy
from housekeeping.policies.result import StopReason
from tests.integration.database import Database
from tests.integration.runs import BRISK, SMALL_WINDOWS, per_status, policy_on, run

BOTH_WALKERS = pytest.mark.parametrize("walker", ["heap", "index"])
NEXT_XID = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text"


def fill(database: Database, days: int = 500) -> None:
    database.run(
        "INSERT INTO events SELECT i, now() - i * interval '1 day',"
        " (ARRAY['done', 'failed'])[1 + i %% 2] FROM generate_series(1, %s) i",
        days,
    )
    database.run("VACUUM ANALYZE events")


@BOTH_WALKERS
def test_a_dry_run_counts_what_the_real_run_then_deletes(
    events: Database, around: Surroundings, walker: str
) -> None:
    fill(events)
    policy = policy_on(events, rules=per_status(done=30, failed=90), pace=SMALL_WINDOWS)

    told = run(policy, around, walker=walker, dry_run=True)
    real = run(policy, around, walker=walker)

    assert told.plan is not None
    assert told.plan["would_delete"] == real.total > 0
    assert told.plan["details"] == real.details
    assert told.plan["counted_all"] is True
    assert (told.stop_reason, told.dry_run, told.total) == (StopReason.DRY_RUN, True, 0)
    assert (told.success, told.exit_code) == (True, 0)


@BOTH_WALKERS
def test_a_dry_run_counts_children_and_kept_rows_as_the_real_run_does(
    events: Database, around: Surroundings, walker: str
) -> None:
    fill(events)
    events.run(
        "CREATE TABLE logs (event bigint REFERENCES events ON DELETE CASCADE);"
        "CREATE INDEX ON logs (event);"
        "CREATE TABLE holds (event bigint);"
        "INSERT INTO logs SELECT id FROM events, generate_series(1, 2);"
        "INSERT INTO holds SELECT id FROM events WHERE id % 10 = 0"
    )
    policy = policy_on(events, kept_by=(KeptBy(table="holds", column="event", refers_to="id"),))

    told = run(policy, around, walker=walker, dry_run=True)
    real = run(policy, around, walker=walker)

    assert told.plan is not None
    assert told.plan["would_delete"] == real.total == 471 - 48
    assert told.plan["details"] == real.details == {"expired": 423, "logs": 846}


@BOTH_WALKERS
@pytest.mark.parametrize("pace", [BRISK, replace(BRISK, row_budget=7)], ids=["limit", "budget"])
def test_a_dry_run_within_a_limit_tells_no_more_than_the_limit(
    events: Database, around: Surroundings, walker: str, pace: object
) -> None:
    fill(events)
    policy = policy_on(events, pace=pace)
    limit = None if pace is not BRISK else 7

    told = run(policy, around, walker=walker, limit=limit, dry_run=True)
    real = run(policy, around, walker=walker, limit=limit)

    assert told.plan is not None
    assert told.plan["would_delete"] == real.total == 7


def test_a_dry_run_writes_nothing(events: Database, around: Surroundings) -> None:
    fill(events)
    before = events.one(NEXT_XID)

    run(policy_on(events), around, dry_run=True)

    assert events.one(NEXT_XID) == before
    assert events.one("SELECT to_regnamespace('housekeeping')") is None
    assert events.count("events") == 500
    assert around.redis.keys() == []


def test_a_dry_run_needs_no_redis_and_no_right_to_delete_in_the_ledger(
    events: Database, around: Surroundings
) -> None:
    fill(events)
    around.redis.set("{housekeeping:lease:somewhere}", "other run")

    assert run(policy_on(events), around, dry_run=True).success


@pytest.mark.parametrize("statement_has", ['DELETE FROM "public"."events"', "%(cutoff_0)s"])
def test_a_dry_run_shows_the_statement_and_the_plan(
    events: Database, around: Surroundings, statement_has: str
) -> None:
    fill(events)

    plan = run(policy_on(events), around, dry_run=True).plan

    assert plan is not None
    assert statement_has in plan["statement"]
    assert {"walks", "indexes", "estimated_rows", "table_rows", "because"} <= set(plan)


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_value_that_is_not_of_the_columns_type_is_refused_before_anything_runs(
    database: Database, around: Surroundings, *, dry_run: bool
) -> None:
    database.run("CREATE TABLE events (id int, created_at timestamptz, status int)")

    with pytest.raises(ConfigurationRefused, match="status"):
        run(policy_on(database, rules=per_status(done=30)), around, dry_run=dry_run)


def test_what_is_hardly_meant_so_in_the_settings_is_told_first_and_lets_partitions_go_whole(
    events: Database, around: Surroundings
) -> None:
    doubt = 'keep_for = 30 means 30 seconds; write "30d" for days'
    policy = policy_on(events, doubts=(doubt,))
    fill(events)

    told = run(policy, around, dry_run=True)

    assert told.warnings[0] == doubt
    assert policy.takes_every_old_row
