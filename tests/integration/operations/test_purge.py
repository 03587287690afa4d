"""Exactly the expired rows go; the result and the ledger say so."""

import json
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.operations.records import past_runs
from housekeeping.policies.purge import ExpiryRule
from housekeeping.policies.result import RunResult, StopReason
from tests.integration.database import Database
from tests.integration.runs import (
    BRISK,
    EXPIRED,
    MONTH,
    SMALL_WINDOWS,
    ledger_rows,
    per_status,
    policy_on,
    run,
)

BOTH_WALKERS = pytest.mark.parametrize("walker", ["heap", "index"])
FILL = (
    "INSERT INTO events SELECT i, now() - i * interval '1 day', 'done', 'note ' || i"
    " FROM generate_series(1, %s) i"
)


def fill(database: Database, days: int) -> None:
    """Put in an event for each of the last days, the row's id being its age in days."""
    database.run(FILL, days)
    database.run("VACUUM ANALYZE events")


@BOTH_WALKERS
def test_rows_past_their_age_go_and_the_others_stay(
    events: Database, around: Surroundings, walker: str
) -> None:
    fill(events, 1_000)

    result = run(policy_on(events, pace=SMALL_WINDOWS), around, walker=walker)

    assert events.column("SELECT id FROM events ORDER BY id") == list(range(1, 30))
    assert (result.stop_reason, result.total, result.success) == (StopReason.EXHAUSTED, 971, True)
    assert result.details == {"expired": 971}


@BOTH_WALKERS
def test_a_row_one_second_inside_its_age_stays_and_one_second_past_it_goes(
    events: Database, around: Surroundings, walker: str
) -> None:
    events.run(
        "INSERT INTO events SELECT i, now() - i * interval '1 second' FROM (VALUES (59), (61)) v(i)"
    )
    minute = (ExpiryRule(reason="expired", keep_for=timedelta(minutes=1)),)

    run(policy_on(events, rules=minute), around, walker=walker)

    assert events.column("SELECT id FROM events") == [59]


@BOTH_WALKERS
def test_a_row_without_an_age_never_expires(
    events: Database, around: Surroundings, walker: str
) -> None:
    events.run("INSERT INTO events VALUES (1, NULL), (2, '-infinity'), (3, 'infinity')")

    result = run(policy_on(events), around, walker=walker)

    assert events.column("SELECT id FROM events ORDER BY id") == [1, 3]
    assert result.total == 1


@BOTH_WALKERS
def test_each_status_has_an_age_of_its_own_and_unlisted_ones_stay(
    events: Database, around: Surroundings, walker: str
) -> None:
    events.run("CREATE INDEX ON events (status, created_at)")
    events.run(
        "INSERT INTO events SELECT row_number() OVER (), now() - age * interval '1 day', status"
        " FROM unnest(ARRAY['done', 'failed', 'running', NULL]) status,"
        " unnest(ARRAY[10, 40, 100]) age"
    )

    rules = per_status(done=30, failed=90)
    result = run(policy_on(events, rules=rules), around, walker=walker)

    left = events.rows(
        "SELECT status, extract(day FROM now() - created_at)::int FROM events"
        " WHERE status IN ('done', 'failed') ORDER BY 1, 2"
    )
    assert left == [("done", 10), ("failed", 10), ("failed", 40)]
    assert events.one("SELECT count(*) FROM events WHERE status = 'running'") == 3
    assert events.one("SELECT count(*) FROM events WHERE status IS NULL") == 3
    assert result.details == {"done": 2, "failed": 1}
    assert result.total == 3


@BOTH_WALKERS
@pytest.mark.parametrize(
    ("where", "survivors"),
    [
        ("note LIKE '%0'", [n for n in range(1, 60) if n < 30 or n % 10]),
        ("note <> 'it''s'' 100%'", list(range(1, 30))),
        ("status IS DISTINCT FROM 'done' OR id % 2 = 0", [*range(1, 30), *range(31, 60, 2)]),
        ("events.id = ANY(ARRAY[31, 32])", [n for n in range(1, 60) if n not in (31, 32)]),
    ],
)
def test_where_narrows_what_goes(
    events: Database, around: Surroundings, walker: str, where: str, survivors: list[int]
) -> None:
    fill(events, 59)

    run(policy_on(events, where=where), around, walker=walker)

    assert events.column("SELECT id FROM events ORDER BY id") == survivors


@BOTH_WALKERS
def test_a_bulk_load_with_one_timestamp_goes_in_several_transactions(
    events: Database, around: Surroundings, walker: str
) -> None:
    fill(events, 100)
    events.run(
        "INSERT INTO events SELECT i, now() - interval '60 days' FROM generate_series(1001, 61000) i"
    )
    events.run("VACUUM ANALYZE events")

    result = run(policy_on(events, pace=SMALL_WINDOWS), around, walker=walker)

    assert events.column("SELECT id FROM events ORDER BY id") == list(range(1, 30))
    assert (result.total, result.stop_reason) == (60_071, StopReason.EXHAUSTED)
    assert result.batches > 5
    assert ledger_rows(events) == 60_071


@BOTH_WALKERS
@pytest.mark.parametrize("limit", [1, 7, 150])
def test_a_limit_is_exact(events: Database, around: Surroundings, walker: str, limit: int) -> None:
    fill(events, 1_000)

    result = run(policy_on(events, pace=SMALL_WINDOWS), around, walker=walker, limit=limit)

    assert events.count("events") == 1_000 - limit
    assert (result.total, result.stop_reason) == (limit, StopReason.ROW_BUDGET)
    assert (result.success, result.exit_code) == (False, 2)
    if walker == "index":
        assert result.oldest_expired_age_seconds is not None


def test_a_row_budget_is_exact_and_the_smaller_of_budget_and_limit_counts(
    events: Database, around: Surroundings
) -> None:
    fill(events, 1_000)
    policy = policy_on(events, pace=replace(BRISK, row_budget=5))

    assert run(policy, around, limit=9).total == 5
    assert run(policy, around, limit=3).total == 3
    assert events.count("events") == 992


def test_a_run_leaves_between_two_windows_once_its_time_is_over(
    events: Database, around: Surroundings
) -> None:
    fill(events, 1_000)
    hurried = replace(SMALL_WINDOWS, time_budget=timedelta(0))

    result = run(policy_on(events, pace=hurried), around)

    assert (result.stop_reason, result.total) == (StopReason.TIME_BUDGET, 0)
    assert (result.success, result.exit_code) == (False, 2)


@BOTH_WALKERS
def test_an_empty_table_is_done_at_once(
    events: Database, around: Surroundings, walker: str
) -> None:
    result = run(policy_on(events), around, walker=walker)

    assert (result.stop_reason, result.total, result.success) == (StopReason.EXHAUSTED, 0, True)


def test_a_second_run_finds_nothing_to_do(events: Database, around: Surroundings) -> None:
    fill(events, 100)
    run(policy_on(events), around)

    assert run(policy_on(events), around).total == 0
    assert ledger_rows(events) == 71


def test_the_result_has_the_shape_monitoring_reads(events: Database, around: Surroundings) -> None:
    fill(events, 100)
    run_id = uuid4()

    shape = json.loads(json.dumps(run(policy_on(events), around, run_id=run_id).as_dict()))

    assert list(shape)[:8] == [
        "success", "operation", "policy", "run_id", "stop_reason", "dry_run", "total_deleted",
        "details",
    ]  # fmt: skip
    assert shape["run_id"] == str(run_id)
    assert set(shape["phases"]) == {"probe", "delete", "commit", "wait"}
    assert list(shape["cutoffs"]) == ["expired"]
    assert shape["batches"] >= 1
    assert shape["warnings"] == []
    assert shape["oldest_expired_age_seconds"] is None


def test_the_ledger_says_who_what_when_and_why_it_stopped(
    events: Database, around: Surroundings
) -> None:
    fill(events, 100)

    result = run(policy_on(events), around, task_id="celery-1")

    (past,) = past_runs([events.url], "tables.purge", "1 hour", 10)
    assert (past["run_by"], past["task_id"], past["policy"]) == ("tester@here", "celery-1", "plain")
    assert past["target"].endswith("/public.events")
    assert (past["stop_reason"], past["success"], past["total"]) == ("exhausted", True, 71)
    assert past["ended_at"] >= past["started_at"]
    assert RunResult.from_dict(past["result"]).as_dict() == result.as_dict()
    assert past_runs([events.url], "another.operation", None, 10) == []


def test_a_run_that_ended_is_not_done_again_under_its_id(
    events: Database, around: Surroundings
) -> None:
    fill(events, 100)
    run_id = uuid4()
    first = run(policy_on(events), around, run_id=run_id)
    events.run("INSERT INTO events VALUES (1000, now() - interval '1 year')")

    again = run(policy_on(events), around, run_id=run_id)

    assert again.as_dict() == first.as_dict()
    assert events.one("SELECT count(*) FROM events WHERE id = 1000") == 1


def test_the_rules_of_a_policy_without_column_are_all_rows(
    events: Database, around: Surroundings
) -> None:
    fill(events, 31)
    shorter = replace(EXPIRED[0], keep_for=MONTH + timedelta(hours=12))

    assert run(policy_on(events, rules=(shorter,)), around).total == 1
