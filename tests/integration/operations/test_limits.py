"""No run takes more of a table than it may without a yes, whatever statistics say."""

from dataclasses import replace
from datetime import timedelta

import pytest

from housekeeping.engine.run import Request, Surroundings
from housekeeping.operations.purge import purge
from housekeeping.policies.allowance import Allowance
from housekeeping.policies.purge import Age, ExpiryRule, KeepNewest
from housekeeping.policies.result import StopReason
from tests.integration.database import Database
from tests.integration.runs import (
    SMALL_WINDOWS,
    AfterWindow,
    ledger_rows,
    listening,
    policy_on,
    run,
)

BOTH_WALKERS = pytest.mark.parametrize("walker", ["heap", "index"])
ANALYZED = pytest.mark.parametrize("analyzed", ["analyzed", "never analyzed"])
A_FIFTH = Allowance(share=0.2)


@pytest.fixture
def events(events: Database) -> Database:
    """The table of events; nobody analyzes it behind a test's back."""
    events.run("ALTER TABLE events SET (autovacuum_enabled = false)")
    return events


def fill(database: Database, expired: int, kept: int = 0) -> None:
    """Add rows that have expired, the oldest first, and then rows that have not."""
    database.run(
        "INSERT INTO events SELECT n + i, now() - interval '60 days' + i * interval '1 second'"
        " FROM generate_series(1, %s) i, (SELECT coalesce(max(id), 0) AS n FROM events) AS last",
        expired,
    )
    database.run(
        "INSERT INTO events SELECT n + i, now() - interval '1 day'"
        " FROM generate_series(1, %s) i, (SELECT coalesce(max(id), 0) AS n FROM events) AS last",
        kept,
    )


@BOTH_WALKERS
@ANALYZED
@pytest.mark.parametrize(
    "allowance",
    [A_FIFTH, Allowance(rows=2_000), Allowance(share=0.9, rows=2_000)],
    ids=["share", "rows", "both"],
)
def test_exactly_as_much_as_is_allowed_goes(
    events: Database, around: Surroundings, walker: str, analyzed: str, allowance: Allowance
) -> None:
    fill(events, 2_000, 8_000)
    if analyzed == "analyzed":
        events.run("ANALYZE events")

    result = run(policy_on(events, allowance=allowance), around, walker=walker)

    assert (result.total, result.stop_reason, result.success) == (
        2_000,
        StopReason.EXHAUSTED,
        True,
    )


@BOTH_WALKERS
@ANALYZED
@pytest.mark.parametrize("allowance", [A_FIFTH, Allowance(rows=2_000)], ids=["share", "rows"])
def test_one_row_more_than_allowed_and_nothing_goes(
    events: Database, around: Surroundings, walker: str, analyzed: str, allowance: Allowance
) -> None:
    fill(events, 2_001, 7_999)
    if analyzed == "analyzed":
        # So that the estimate is over the limit; a little below it only a window would notice.
        events.run("ALTER TABLE events ALTER created_at SET STATISTICS 10000; ANALYZE events")
    policy = policy_on(events, allowance=allowance, pace=SMALL_WINDOWS)

    result = run(policy, around, walker=walker)

    assert (result.stop_reason, result.success, result.exit_code) == (StopReason.STOPPED, False, 2)
    assert result.total <= 2_000
    assert result.total == 10_000 - events.count("events") == ledger_rows(events)
    told = result.warnings[-1]
    assert str(allowance) in told
    assert "2,000" in told
    assert "--yes" in told
    if analyzed != "analyzed":
        assert result.total == 0
        assert "at least 2,001 " in told


@BOTH_WALKERS
@pytest.mark.parametrize("window", [100, 100_000], ids=["small windows", "one window"])
def test_statistics_from_before_can_not_make_a_run_take_more(
    events: Database, around: Surroundings, walker: str, window: int
) -> None:
    """The planner knows a large table in which next to nothing has expired."""
    fill(events, 10, 50_000)
    events.run("ANALYZE events; DELETE FROM events WHERE id > 10000")
    events.run("UPDATE events SET created_at = now() - interval '60 days' WHERE id <= 5000")
    pace = replace(SMALL_WINDOWS, first_window_rows=window)

    result = run(policy_on(events, allowance=A_FIFTH, pace=pace), around, walker=walker)

    assert result.total <= 2_000
    assert result.total == 10_000 - events.count("events")
    assert (result.stop_reason, result.success) == (StopReason.STOPPED, False)
    assert "of 10,000 rows" in result.warnings[-1]


def test_statistics_from_before_do_not_stop_a_run_that_takes_little(
    events: Database, around: Surroundings
) -> None:
    """The planner knows a table most of which has expired; it went with the last run."""
    fill(events, 40_000, 10_000)
    events.run("ANALYZE events; DELETE FROM events WHERE id BETWEEN 1001 AND 40000")

    result = run(policy_on(events, allowance=A_FIFTH), around)

    assert (result.total, result.success) == (1_000, True)


def test_rows_that_something_keeps_do_not_count(events: Database, around: Surroundings) -> None:
    fill(events, 5_000, 100)
    events.run("ANALYZE events")
    policy = policy_on(events, allowance=A_FIFTH, keep_newest=KeepNewest(rows=4_500))

    result = run(policy, around)

    assert (result.total, result.success) == (600, True)


@BOTH_WALKERS
def test_an_age_the_planner_knows_nothing_of_is_counted_first(
    events: Database, around: Surroundings, walker: str
) -> None:
    fill(events, 3_000, 7_000)
    events.run("ANALYZE events")
    age = Age(expression="created_at + (id - id) * interval '1 day'")

    result = run(policy_on(events, age=age, allowance=A_FIFTH), around, walker=walker)

    assert (result.total, result.stop_reason) == (0, StopReason.STOPPED)


def test_a_yes_lifts_the_limit_for_one_run(events: Database, around: Surroundings) -> None:
    fill(events, 5_000, 100)
    policy = policy_on(events, allowance=Allowance(share=0.01, rows=1))

    planned = run(policy, around, confirmed=True, dry_run=True)
    done = run(policy, around, confirmed=True)

    assert (planned.success, done.success, done.total) == (True, True, 5_000)
    fill(events, 5_000)
    assert run(policy, around).stop_reason is StopReason.STOPPED


def test_a_share_of_one_allows_everything(events: Database, around: Surroundings) -> None:
    fill(events, 5_000)

    assert run(policy_on(events, allowance=Allowance(share=1.0)), around).total == 5_000


def test_a_run_that_a_budget_ends_before_its_limit_is_not_asked(
    events: Database, around: Surroundings
) -> None:
    fill(events, 5_000)
    policy = policy_on(events, allowance=A_FIFTH)

    within = run(policy, around, limit=1_000)
    beyond = run(policy, around, limit=1_001)

    assert (within.total, within.stop_reason) == (1_000, StopReason.ROW_BUDGET)
    assert (beyond.total, beyond.stop_reason) == (0, StopReason.STOPPED)


def test_what_earlier_attempts_of_a_run_took_counts(events: Database, around: Surroundings) -> None:
    fill(events, 2_500, 7_500)
    policy = policy_on(events, allowance=A_FIFTH)
    asked = Request(run_by="tester@here", limit=1_500)
    assert purge(policy, asked, around).total == 1_500
    events.run("UPDATE housekeeping.run SET ended_at = NULL, result = NULL")  # as if it had died

    again = purge(policy, replace(asked, limit=None), around)

    assert (again.total, again.stop_reason) == (1_500, StopReason.STOPPED)
    assert "1,500 rows had gone" in again.warnings[-1]


@BOTH_WALKERS
def test_rows_that_come_to_expire_meanwhile_count(
    events: Database, around: Surroundings, walker: str
) -> None:
    fill(events, 1_500, 8_500)
    events.run("ANALYZE events")
    more = AfterWindow(
        lambda: events.run("UPDATE events SET created_at = now() - interval '40 days'")
    )
    policy = policy_on(events, allowance=A_FIFTH, pace=SMALL_WINDOWS)

    result = run(policy, listening(around, more), walker=walker)

    assert result.total <= 2_000
    assert (result.stop_reason, result.success) == (StopReason.STOPPED, False)


def test_a_dry_run_tells_that_a_run_would_stop(events: Database, around: Surroundings) -> None:
    fill(events, 2_001, 7_999)
    policy = policy_on(events, allowance=A_FIFTH)

    result = run(policy, around, dry_run=True)

    assert result.plan is not None
    assert (result.plan["would_delete"], result.plan["would_stop"]) == (2_001, True)
    assert (result.stop_reason, result.success, result.exit_code) == (StopReason.DRY_RUN, False, 2)
    assert "2,001 rows would go" in result.warnings[-1]
    assert run(policy_on(events, allowance=Allowance(share=0.21)), around, dry_run=True).success


def test_a_child_s_rows_are_not_the_table_s(events: Database, around: Surroundings) -> None:
    fill(events, 100, 900)
    events.run(
        "CREATE TABLE logs (event bigint REFERENCES events ON DELETE CASCADE);"
        "CREATE INDEX ON logs (event); INSERT INTO logs SELECT id FROM events, generate_series(1, 20)"
    )

    result = run(policy_on(events, allowance=Allowance(rows=100)), around)

    assert (result.total, result.details["logs"], result.success) == (100, 2_000, True)


def test_a_wrong_unit_is_stopped(database: Database, around: Surroundings) -> None:
    """Seconds read as milliseconds: everything is from 1970."""
    database.run(
        "CREATE TABLE events (id int PRIMARY KEY, at bigint);"
        "INSERT INTO events SELECT i, extract(epoch FROM now() - i * interval '1 hour')"
        " FROM generate_series(1, 5000) i"
    )
    policy = policy_on(
        database,
        age=Age(columns=("at",), unit="ms"),
        rules=(ExpiryRule(reason="expired", keep_for=timedelta(days=200, minutes=30)),),
        allowance=Allowance(share=0.5),
    )

    wrong = run(policy, around)
    right = run(replace(policy, age=Age(columns=("at",), unit="s")), around)

    assert (wrong.total, wrong.stop_reason) == (0, StopReason.STOPPED)
    assert (right.total, right.success) == (200, True)
