"""A dry run of a partitioned table prices what goes whole and what goes by rows."""

from typing import Any

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.operations.dry_runs import dry_run
from tests.integration.database import Database
from tests.integration.dry_runs import NEXT_XID, plan_of
from tests.integration.runs import per_status, policy_on


@pytest.fixture
def parted(database: Database) -> Database:
    """Events of 120 days, a partition for each ten of them."""
    database.run(
        "CREATE TABLE events (id bigint, created_at timestamptz NOT NULL, status text)"
        " PARTITION BY RANGE (created_at)"
    )
    for number in range(-1, 12):
        low, high = (
            database.one("SELECT (now()::date - %s * interval '10 days')::text", n)
            for n in (number + 1, number)
        )
        database.run(
            f"CREATE TABLE events_{number + 1} PARTITION OF events"
            f" FOR VALUES FROM ('{low}') TO ('{high}')"
        )
    database.run(
        "INSERT INTO events SELECT i, now() - i * interval '1 hour',"
        " (ARRAY['done', 'failed'])[1 + i % 2] FROM generate_series(1, 24 * 118) i"
    )
    database.run("VACUUM ANALYZE")
    return database


def test_whole_partitions_and_rows_have_one_price(parted: Database, around: Surroundings) -> None:
    before = parted.one(NEXT_XID)

    plan = plan_of(policy_on(parted), around)

    cost = plan["cost"]
    assert len(plan["whole_partitions"]) > 0
    assert cost["dropped_bytes"] == sum(whole["bytes"] for whole in plan["whole_partitions"])
    assert cost["seconds"] > 0.1 * len(plan["whole_partitions"])
    assert plan["counted"] == "exact"
    assert "whole partitions" in plan["counted_because"]
    (statement,) = plan["statements"]
    assert plan["by_rows"][0].removeprefix("public.") in statement["sql"]
    assert parted.one(NEXT_XID) == before


def details(plan: dict[str, Any]) -> tuple[int, int]:
    return plan["details"]["done"], plan["details"]["failed"]


def test_leaves_that_go_by_rows_are_estimated_together(
    parted: Database, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = policy_on(parted, rules=per_status(done=30, failed=60))
    exact = plan_of(policy, around)

    monkeypatch.setattr(dry_run, "COUNT_SECONDS", 0.0)
    estimate = plan_of(policy, around)

    assert (exact["counted"], estimate["counted"]) == ("exact", "estimate")
    assert len(exact["by_rows"]) > 1
    assert estimate["would_delete"] == pytest.approx(exact["would_delete"], rel=0.15)
    assert details(estimate) == pytest.approx(details(exact), rel=0.15)
    assert estimate["cost"]["wal_bytes"] == pytest.approx(exact["cost"]["wal_bytes"], rel=0.3)
