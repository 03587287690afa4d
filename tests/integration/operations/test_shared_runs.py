"""A run that several workers share: every row once, no range twice, whoever comes."""

import time
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.operations.shared_runs.sharing import Shared, share
from housekeeping.policies.archive import ArchiveTo
from housekeeping.policies.pace import Pace
from housekeeping.policies.policy import Policy
from housekeeping.policies.result import RunResult, StopReason
from tests.integration.database import Database
from tests.integration.operations.sharing import (
    EXPIRED,
    KEPT,
    OVERLAPS,
    SHARED,
    assert_done_exactly_once,
    crew,
    nobody_comes,
    run_shared,
)
from tests.integration.runs import (
    AfterWindow,
    ledger_rows,
    listening,
    policy_on,
    run,
)


def test_two_workers_share_a_run_and_its_totals_are_exact(
    sharable: Database, around: Surroundings
) -> None:
    with crew(around) as helpers:
        result = run_shared(policy_on(sharable, pace=SHARED), around, helpers)
        (shared,) = [each.result(10) for each in helpers.shares]

    assert_done_exactly_once(sharable, result)
    assert result.workers == result.as_dict()["workers"] == 2
    assert 0 < shared.rows < EXPIRED
    assert shared.ended == "exhausted"
    assert RunResult.from_dict(result.as_dict()).workers == 2


def test_seven_workers_on_tiny_windows_never_work_on_one_range_at_once(
    sharable: Database, around: Surroundings
) -> None:
    many = replace(around, workers_per_database=7)
    tiny = replace(SHARED, workers=7, first_window_rows=10, batch_target=timedelta(milliseconds=1))
    with crew(many) as helpers:
        result = run_shared(policy_on(sharable, pace=tiny), many, helpers)

    assert_done_exactly_once(sharable, result)
    assert helpers.asked[0][1] == 6
    assert result.batches == sharable.count("housekeeping.run_window") > 100


def test_where_nobody_comes_the_owner_does_it_all(sharable: Database, around: Surroundings) -> None:
    result = run(policy_on(sharable, pace=SHARED), replace(around, recruit=nobody_comes))

    assert_done_exactly_once(sharable, result)
    assert "workers" not in result.as_dict()
    assert sharable.count("housekeeping.shard") > 1


def test_who_comes_late_finds_nothing_to_do(sharable: Database, around: Surroundings) -> None:
    policy, run_id = policy_on(sharable, pace=SHARED), uuid4()
    assert share(policy, uuid4(), "early@there", around).ended == "the run has ended"
    run(policy, replace(around, recruit=nobody_comes), run_id=run_id)

    late = share(policy, run_id, "late@there", around)

    assert late == Shared(0, 0, "the run has ended")


def test_a_worker_with_another_policy_of_the_same_name_keeps_its_hands_off(
    sharable: Database, around: Surroundings
) -> None:
    others = policy_on(sharable, where="status = 'done'", pace=SHARED)
    shares = []

    def recruit(policy: Policy, run_id: UUID, count: int) -> None:
        shares.append(share(others, run_id, "old@there", around))

    result = run(policy_on(sharable, pace=SHARED), replace(around, recruit=recruit))

    assert [each.ended for each in shares] == ["another policy than the run's"]
    assert_done_exactly_once(sharable, result)


@pytest.mark.parametrize(
    ("pace", "asked"),
    [
        (replace(SHARED, workers=1), {}),
        (replace(SHARED, split_above_rows=EXPIRED * 2), {}),
        (replace(SHARED, row_budget=EXPIRED * 2), {}),
        (SHARED, {"limit": EXPIRED * 2}),
    ],
    ids=["one worker", "few rows", "row budget", "limit"],
)
def test_a_run_that_is_small_or_limited_is_not_shared(
    sharable: Database, around: Surroundings, pace: Pace, asked: dict[str, Any]
) -> None:
    with crew(around) as helpers:
        result = run_shared(policy_on(sharable, pace=pace), around, helpers, **asked)

    assert (result.total, helpers.asked) == (EXPIRED, [])
    assert sharable.count("housekeeping.shard") == 0


def test_a_run_nobody_could_be_asked_to_share_stays_whole(
    sharable: Database, around: Surroundings
) -> None:
    result = run(policy_on(sharable, pace=SHARED), around)

    assert (result.success, result.total) == (True, EXPIRED)
    assert sharable.count("housekeeping.shard") == 0


def test_no_more_are_asked_than_there_are_places_on_the_database(
    sharable: Database, around: Surroundings
) -> None:
    narrow = replace(around, workers_per_database=3)
    with crew(narrow) as helpers:
        result = run_shared(policy_on(sharable, pace=replace(SHARED, workers=9)), narrow, helpers)

    assert [count for _, count in helpers.asked] == [2]
    assert_done_exactly_once(sharable, result)


@pytest.mark.parametrize("flag", ["stop", "pause"])
def test_stop_and_pause_reach_every_worker(
    sharable: Database, around: Surroundings, flag: str
) -> None:
    policy, run_id = policy_on(sharable, pace=replace(SHARED, duty=0.1)), uuid4()
    # A helper outlives the owner by a window at most: it hears the flag itself.
    flags = {
        "stop": lambda: around.control.stop(str(run_id)),
        "pause": lambda: around.control.pause(policy.task),
    }
    act = AfterWindow(flags[flag], window=5)
    with crew(around) as helpers:
        result = run_shared(policy, listening(around, act), helpers, run_id=run_id)
        shared = [each.result(10) for each in helpers.shares]

    assert result.stop_reason.value in ("stopped", "paused")
    assert [each.ended for each in shared] in ([result.stop_reason.value], ["the run has ended"])
    assert 0 < result.total == ledger_rows(sharable) < EXPIRED
    assert sharable.count("events") == EXPIRED + KEPT - result.total
    assert (
        sharable.one(
            "SELECT count(*) FROM housekeeping.shard WHERE claimed_by IS NOT NULL AND done_at IS NULL"
        )
        == 0
    )


def test_the_time_budget_is_every_workers(sharable: Database, around: Surroundings) -> None:
    pace = replace(SHARED, duty=0.01, time_budget=timedelta(seconds=1))
    with crew(around) as helpers:
        result = run_shared(policy_on(sharable, pace=pace), around, helpers)
        begun = time.monotonic()
        for each in helpers.shares:
            each.result(10)

    assert time.monotonic() - begun < 7
    assert result.stop_reason is StopReason.TIME_BUDGET
    assert result.total == ledger_rows(sharable) == EXPIRED + KEPT - sharable.count("events")


SHAPES = {
    "children": (
        "CREATE TABLE logs (event bigint REFERENCES events ON DELETE CASCADE);"
        "CREATE INDEX ON logs (event);"
        "INSERT INTO logs SELECT id FROM events, generate_series(1, 2)"
    ),
    "forbidding": (
        "CREATE TABLE bills (event bigint REFERENCES events); CREATE INDEX ON bills (event);"
        "INSERT INTO bills SELECT id FROM events WHERE id % 1000 = 1"
    ),
}


@pytest.mark.parametrize("shape", list(SHAPES))
def test_relatives_are_treated_as_by_one_worker(
    sharable: Database, around: Surroundings, shape: str
) -> None:
    sharable.run(SHAPES[shape])
    sharable.run("ANALYZE")
    with crew(around) as helpers:
        result = run_shared(policy_on(sharable, pace=SHARED), around, helpers)

    assert result.success
    if shape == "children":
        assert result.details == {"expired": EXPIRED, "logs": 2 * EXPIRED}
        assert sharable.count("logs") == 2 * KEPT
    else:
        held = sharable.one("SELECT count(*) FROM bills WHERE event % 11 <> 0")
        assert result.total == EXPIRED - held


@pytest.mark.parametrize("month_of", ["row", "run"])
def test_an_archive_is_shared_and_no_row_is_lost_or_doubled(
    sharable: Database, around: Surroundings, month_of: Any
) -> None:
    sharable.run(
        "UPDATE events SET created_at = created_at - (id % 200) * interval '1 day'"
        " WHERE id % 11 <> 0"
    )
    sharable.run("VACUUM FULL ANALYZE events")
    contents = "SELECT md5(string_agg(e::text, ',' ORDER BY id)) FROM"
    before = sharable.one(f"{contents} events e WHERE id % 11 <> 0")
    policy = policy_on(
        sharable,
        operation="tables.archive",
        archive=ArchiveTo(prefix="events_archive", month_of=month_of),
        pace=SHARED,
    )
    with crew(around) as helpers:
        result = run_shared(policy, around, helpers)

    assert (result.success, result.error) == (True, None)
    assert (result.total, sharable.count("events")) == (EXPIRED, KEPT)
    assert sharable.rows(OVERLAPS) == []
    tables = sharable.column("SELECT relation FROM housekeeping.archive_table ORDER BY relation")
    assert len(tables) == 1 if month_of == "run" else len(tables) > 5
    rows = " UNION ALL ".join(
        f"SELECT id, created_at, status, note FROM {table}" for table in tables
    )
    assert sharable.one(f"SELECT count(*) FROM ({rows}) a") == EXPIRED
    assert sharable.one(f"{contents} ({rows}) e") == before
    assert sharable.one("SELECT sum(rows) FROM housekeeping.archive_table") == EXPIRED
