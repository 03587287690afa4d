"""A dry run counts where that is quick, estimates where it is not, and says which."""

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.operations.dry_runs import dry_run
from housekeeping.policies.allowance import Allowance
from tests.integration.database import Database
from tests.integration.dry_runs import fill, plan_of, with_family
from tests.integration.holding import hold_on
from tests.integration.runs import MONTH, SMALL_WINDOWS, per_status, policy_on, run


@pytest.fixture
def family(events: Database) -> Database:
    return with_family(events)


def estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count nothing unasked: as on a table of many gigabytes."""
    monkeypatch.setattr(dry_run, "COUNT_SECONDS", 0.0)


def test_what_would_take_long_to_count_is_estimated_by_reason(
    family: Database, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimated(monkeypatch)

    told = run(policy_on(family, rules=per_status(done=30, failed=90)), around, dry_run=True)

    plan = told.plan
    assert plan is not None
    assert (plan["counted"], plan["counted_all"]) == ("estimate", False)
    assert (told.success, told.exit_code, told.batches) == (True, 0, 0)
    assert "--exact" in plan["counted_because"]
    assert plan["would_delete"] == pytest.approx(235 + 205, rel=0.1)
    details = plan["details"]
    assert details["done"] == pytest.approx(235, rel=0.1)
    assert details["failed"] == pytest.approx(205, rel=0.1)
    assert details["logs"] == pytest.approx(880, rel=0.1)
    assert details["done"] + details["failed"] == plan["would_delete"]
    assert {branch["counted"] for branch in plan["fan_out"]} == {"estimate"}


def test_every_row_is_counted_where_that_is_asked_for(
    events: Database, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(events)
    estimated(monkeypatch)

    plan = plan_of(policy_on(events), around, exact=True)

    assert (plan["counted"], plan["would_delete"]) == ("exact", 471)


def test_an_estimate_tells_that_held_rows_are_among_it(
    events: Database, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(events)
    estimated(monkeypatch)

    plan = plan_of(policy_on(events, holds=(hold_on("true"),)), around)

    assert (plan["counted"], "held" in plan) == ("estimate", False)
    assert "holds" in plan["counted_because"]
    assert run(policy_on(events, holds=(hold_on("true"),)), around).total == 0


def test_of_a_table_that_refers_to_itself_it_tells_that_more_may_go(
    events: Database, around: Surroundings
) -> None:
    """A row that nobody refers to any more goes with a later window of the same run."""
    fill(events, 5_000)
    events.run(
        "ALTER TABLE events ADD parent bigint REFERENCES events; CREATE INDEX ON events (parent);"
        "UPDATE events SET parent = id + 1000 WHERE id BETWEEN 101 AND 4000"
    )
    events.run("VACUUM FULL ANALYZE events")
    policy = policy_on(events, pace=SMALL_WINDOWS)

    plan = plan_of(policy, around)
    done = run(policy, around)

    assert done.total > plan["would_delete"]
    assert "at least so many" in plan["counted_because"]


@pytest.mark.parametrize("goes", [True, False])
def test_an_estimate_over_a_limit_is_counted_as_a_run_would(
    events: Database,
    around: Surroundings,
    monkeypatch: pytest.MonkeyPatch,
    goes: bool,  # noqa: FBT001
) -> None:
    """The planner knows a table most of which has expired; it went with the last run."""
    fill(events, 5_000)
    events.run("ALTER TABLE events SET (autovacuum_enabled = false)")
    events.run("DELETE FROM events WHERE id BETWEEN 40 AND 4990")
    policy = policy_on(events, allowance=Allowance(rows=20 if goes else 19))
    estimated(monkeypatch)

    told = run(policy, around, dry_run=True)
    done = run(policy, around)

    assert told.plan is not None
    assert (told.plan["counted"], told.plan["would_delete"] > 1_000) == ("estimate", True)
    assert told.success is done.success is goes
    assert told.plan.get("would_stop", False) is not goes


def test_an_estimate_tells_no_more_than_a_limit(
    events: Database, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(events)
    estimated(monkeypatch)

    plan = plan_of(policy_on(events), around, limit=7)

    assert (plan["would_delete"], plan["details"]["expired"]) == (7, 7)
    assert plan["cost"]["stop_reason"] == "row_budget"


def test_an_estimate_of_a_table_never_analyzed_says_that_it_is_a_guess(
    events: Database, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimated(monkeypatch)
    events.run(
        "ALTER TABLE events SET (autovacuum_enabled = off);"
        "INSERT INTO events SELECT i, now() - i * interval '1 day' FROM generate_series(1, 500) i"
    )

    told = run(policy_on(events), around, dry_run=True)

    assert told.plan is not None
    assert "guess" in told.plan["counted_because"]
    assert any("ANALYZE" in warning for warning in told.warnings)


def test_counting_that_takes_longer_than_told_gives_way_to_the_estimate(
    events: Database, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(events)
    monkeypatch.setattr(dry_run, "_COUNT_PATIENCE", MONTH * 0)

    told = run(policy_on(events), around, dry_run=True)

    assert told.plan is not None
    assert (told.plan["counted"], told.success) == ("estimate", True)
    assert told.plan["would_delete"] == pytest.approx(471, rel=0.1)


@pytest.mark.parametrize("predicted", [9.99, 10.0])
def test_counting_is_worth_ten_seconds(predicted: float) -> None:
    assert dry_run.counts(predicted, exact=False) is (predicted < 10)
    assert dry_run.counts(predicted, exact=True)
