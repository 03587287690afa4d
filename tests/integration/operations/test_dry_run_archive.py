"""A dry run of an archive tells where rows would move to."""

from typing import Any

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.operations.dry_runs import dry_run
from housekeeping.policies.archive import ArchiveTo
from housekeeping.policies.purge import PurgePolicy
from housekeeping.policies.result import RunResult
from tests.integration.database import Database
from tests.integration.dry_runs import CHILDREN, NEXT_XID, fill, plan_of
from tests.integration.runs import policy_on, run


def archived(database: Database, **more: Any) -> PurgePolicy:
    return policy_on(database, operation="tables.archive", archive=ArchiveTo(prefix="kept", **more))


def tables_of(result: RunResult) -> set[str]:
    return {str(table["table"]) for table in result.tables}


def test_a_dry_run_of_an_archive_tells_the_tables_the_run_then_makes(
    events: Database, around: Surroundings
) -> None:
    fill(events)
    events.run(CHILDREN.partition("CREATE TABLE lines")[0])
    events.run("INSERT INTO logs SELECT id, id FROM events")
    before = events.one(NEXT_XID)

    plan = plan_of(archived(events), around)
    unchanged = events.one(NEXT_XID) == before
    real = run(archived(events), around)

    assert unchanged
    assert plan["would_archive"] == real.total == 471
    assert plan["archive"]["complete"] is True
    assert {table["table"] for table in plan["archive"]["tables"]} == tables_of(real)
    assert not any(table["exists"] for table in plan["archive"]["tables"])
    moves = plan["statements"][-1]
    assert moves["name"] == "archive.move_pinned"
    assert 'INSERT INTO "public"."kept_' in moves["sql"]
    assert "makes the archive's tables first" in moves["not_explained"]
    assert moves["explain"]


def test_a_dry_run_beside_the_archives_tables_explains_the_whole_move(
    events: Database, around: Surroundings
) -> None:
    fill(events)
    run(archived(events), around)
    events.run(
        "INSERT INTO events SELECT i + 1000, now() - i * interval '1 day'"
        " FROM generate_series(31, 500) i; "
    )

    plan = plan_of(archived(events), around)

    assert all(table["exists"] for table in plan["archive"]["tables"])
    moves = plan["statements"][-1]
    assert "not_explained" not in moves
    assert any("Insert on kept_" in line for line in moves["explain"])


def test_an_archive_by_the_months_of_its_runs_has_one_table(
    events: Database, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(events)
    monkeypatch.setattr(dry_run, "COUNT_SECONDS", 0.0)

    plan = plan_of(archived(events, month_of="run"), around)

    assert plan["archive"]["complete"] is True
    assert len(plan["archive"]["tables"]) == 1
