"""What a dry run tells beside the rows: statements, what goes along, the price."""

import json
from dataclasses import replace
from typing import Any

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.policies.purge import KeptBy
from tests.integration.conftest import DatabaseFactory
from tests.integration.database import Database
from tests.integration.dry_runs import NEXT_XID, fill, plan_of, with_family
from tests.integration.operations.test_milvaion import policy_of
from tests.integration.runs import policy_on, run


@pytest.fixture
def family(events: Database) -> Database:
    return with_family(events)


def names(plan: dict[str, Any]) -> list[str]:
    return [statement["name"] for statement in plan["statements"]]


@pytest.mark.parametrize("walker", ["heap", "index"])
def test_every_statement_a_run_would_send_for_a_window_is_told_with_its_plan(
    events: Database, family: Database, around: Surroundings, walker: str
) -> None:
    plan = plan_of(policy_on(family), around, walker=walker)

    assert names(plan) == ["purge.pin", "purge.count_children", "purge.delete_pinned"]
    for statement in plan["statements"]:
        assert statement["explain"], statement
        assert "not_explained" not in statement
        assert not any("Seq Scan" in line for line in statement["explain"]), statement["explain"]
    assert plan["statement"] == plan["statements"][-1]["sql"]


@pytest.mark.parametrize(
    ("walker", "scan"),
    [("heap", "Tid Range Scan"), ("index", "events_created_at")],
)
def test_a_table_nothing_refers_to_needs_one_statement(
    events: Database, around: Surroundings, walker: str, scan: str
) -> None:
    fill(events)

    plan = plan_of(policy_on(events), around, walker=walker)

    assert names(plan) == ["purge.delete"]
    assert any(scan in line for line in plan["statements"][0]["explain"])


def test_the_window_explained_is_the_first_real_one(events: Database, around: Surroundings) -> None:
    fill(events)

    plan = plan_of(policy_on(events), around, walker="index")

    lower, upper = plan["statements"][0]["window"]
    newest_expired = events.one(
        "SELECT max(created_at)::text FROM events WHERE created_at < now() - interval '30 d'"
    )
    assert (lower, upper[:19]) == (None, newest_expired[:19])


def test_a_dry_run_with_everything_in_it_assigns_no_transaction_id(
    family: Database, around: Surroundings
) -> None:
    policy = policy_on(family, kept_by=(KeptBy(table="holds", column="event", refers_to="id"),))
    before = family.one(NEXT_XID)

    for walker in ("heap", "index"):
        for limit in (None, 3):
            assert plan_of(policy, around, walker=walker, limit=limit)["statements"]

    assert family.one(NEXT_XID) == before
    assert family.one("SELECT to_regnamespace('housekeeping')") is None


def test_a_dry_run_beside_someone_who_holds_the_table_tells_what_it_can(
    events: Database, around: Surroundings
) -> None:
    fill(events)
    with events.session() as user, user.cursor() as cursor:
        cursor.execute("LOCK TABLE events IN SHARE MODE")  # as CREATE INDEX does

        plan = plan_of(policy_on(events), around)

    assert plan["would_delete"] == 471
    assert "lock timeout" in plan["statements"][0]["not_explained"]


def test_the_fan_out_tells_what_goes_along_what_is_updated_and_what_keeps_a_row(
    family: Database, around: Surroundings
) -> None:
    told = {branch["table"]: branch for branch in plan_of(policy_on(family), around)["fan_out"]}

    logs, lines = told["public.logs"], told["public.lines"]
    assert (logs["effect"], logs["rows"], logs["counted"]) == ("deleted", 942, "exact")
    assert (logs["per_row"], logs["indexed"], logs["key"]) == (2.0, True, "logs")
    assert (lines["effect"], lines["rows"], lines["through"]) == ("deleted", 942, ["public.logs"])
    assert lines["counted"] == "estimate"
    notes, holds = told["public.notes"], told["public.holds"]
    assert (notes["effect"], notes["on_delete"]) == ("updated", "set null")
    assert notes["rows"] == pytest.approx(235, abs=2)
    assert (holds["effect"], holds["rows"]) == ("keeps its row", None)


def test_the_price_has_every_key_and_adds_up(family: Database, around: Surroundings) -> None:
    cost = plan_of(policy_on(family), around)["cost"]

    assert set(cost) == {
        "seconds", "worked_seconds", "rest_seconds", "batches", "stop_reason", "runs", "wal_bytes",
        "pages", "dead_rows", "reusable_bytes", "vacuum_advised", "vacuum", "basis",
        "times_the_model",
    }  # fmt: skip
    assert cost["seconds"] >= cost["worked_seconds"] + cost["rest_seconds"] > 0
    assert cost["wal_bytes"] > 471 * 56
    assert (cost["stop_reason"], cost["runs"], cost["vacuum"]) == ("exhausted", 1, [])
    assert cost["dead_rows"] >= 471


def test_a_run_after_it_tells_the_next_dry_run_how_fast_this_server_is(
    events: Database, around: Surroundings
) -> None:
    events.run(
        "INSERT INTO events SELECT i, now() - i * interval '1 minute' FROM generate_series(1, 60000) i"
    )
    events.run("VACUUM ANALYZE events")
    policy = policy_on(events)
    before = plan_of(policy, around)["cost"]
    first = run(policy, around)
    events.run(
        "INSERT INTO events SELECT -i, now() - interval '99 d' FROM generate_series(1, 60000) i;"
        "ANALYZE events"
    )

    after = plan_of(policy, around)["cost"]

    assert first.total > 10_000
    assert before["basis"] == "how fast this server is right now"
    assert after["basis"] == "the last 1 runs of this policy"


@pytest.mark.parametrize("budget", [None, 50])
def test_the_price_is_of_what_a_limit_lets_go(
    events: Database, around: Surroundings, budget: int | None
) -> None:
    fill(events)

    plan = plan_of(policy_on(events), around, limit=budget)

    cut = budget is not None
    assert plan["cost"]["stop_reason"] == ("row_budget" if cut else "exhausted")
    assert plan["counted"] == ("partly" if cut else "exact")
    assert plan["cost"]["dead_rows"] == (50 if cut else 471)


def test_a_ledger_elsewhere_tells_of_former_runs_and_its_absence_hinders_nothing(
    events: Database, new_database: DatabaseFactory, around: Surroundings
) -> None:
    events.run(
        "INSERT INTO events SELECT i, now() - i * interval '1 minute' FROM generate_series(1, 60000) i"
    )
    elsewhere = replace(around, ledger_url=new_database("").url)
    nowhere = replace(around, ledger_url="postgresql://nobody@127.0.0.1:1/none")
    run(policy_on(events), elsewhere)

    told = plan_of(policy_on(events), elsewhere)["cost"]["basis"]

    assert told == "the last 1 runs of this policy"
    assert (
        plan_of(policy_on(events), nowhere)["cost"]["basis"] == "how fast this server is right now"
    )


def test_the_rows_of_a_partitioned_child_are_those_of_its_partitions(
    events: Database, around: Surroundings
) -> None:
    fill(events)
    events.run(
        "CREATE TABLE logs (event bigint REFERENCES events ON DELETE CASCADE, n int)"
        " PARTITION BY LIST (n);"
        "CREATE TABLE logs_0 PARTITION OF logs FOR VALUES IN (0);"
        "CREATE TABLE logs_1 PARTITION OF logs FOR VALUES IN (1);"
        "CREATE INDEX ON logs (event);"
        "INSERT INTO logs SELECT id, n FROM events, generate_series(0, 1) n"
    )
    events.run("VACUUM ANALYZE")

    (branch,) = plan_of(policy_on(events), around)["fan_out"]

    assert (branch["table"], branch["per_row"], branch["rows"]) == ("public.logs", 2.0, 942)


@pytest.mark.parametrize("generation", ["V1", "V2", "V3", "V1 bare", "V3 bare"])
def test_milvaions_retention_is_priced_on_every_generation_of_its_schema(
    new_database: DatabaseFactory,
    milvaion_schemas: dict[str, str],
    around: Surroundings,
    generation: str,
) -> None:
    milvaion = new_database(milvaion_schemas[generation])
    before = milvaion.one(NEXT_XID)

    told = run(policy_of(milvaion, "occurrences.retention"), around, dry_run=True, walker="index")

    assert told.success
    assert told.plan is not None
    assert told.plan["cost"]["seconds"] > 0
    assert all(statement["explain"] for statement in told.plan["statements"])
    effects = {branch["table"]: branch["effect"] for branch in told.plan["fan_out"]}
    assert effects["public.FailedOccurrences"] == "deleted"
    assert len(json.dumps(told.as_dict())) < 300_000  # it travels through the result backend
    assert milvaion.one(NEXT_XID) == before
