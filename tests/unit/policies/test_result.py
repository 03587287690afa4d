"""What every run returns, and when it may call itself a success."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from housekeeping.policies.result import Phases, RunResult, StopReason

RESULTS = st.builds(
    RunResult,
    operation=st.text(min_size=1),
    policy=st.text(min_size=1),
    run_id=st.uuids().map(str),
    stop_reason=st.sampled_from(StopReason),
    total_key=st.sampled_from(["total_deleted", "total_archived", "total_cleaned"]),
    total=st.integers(0),
    details=st.dictionaries(st.text(), st.integers(0)),
    cutoffs=st.dictionaries(st.text(), st.datetimes(timezones=st.just(UTC))),
    batches=st.integers(0),
    seconds=st.floats(0, 1e6).map(lambda seconds: round(seconds, 4)),
    oldest_expired_age_seconds=st.none() | st.floats(0, 1e9),
    warnings=st.lists(st.text()).map(tuple),
    left_behind=st.integers(0, 5),
    dry_run=st.booleans(),
    plan=st.none() | st.dictionaries(st.text(), st.integers()),
    error=st.none() | st.text(min_size=1),
)
DONE = {StopReason.EXHAUSTED, StopReason.DRY_RUN}


@given(RESULTS)
def test_a_result_survives_the_way_through_json(result: RunResult) -> None:
    shape = json.loads(json.dumps(result.as_dict()))

    assert RunResult.from_dict(shape) == result


@given(RESULTS)
def test_nothing_is_a_success_that_left_something_undone(result: RunResult) -> None:
    if result.stop_reason not in DONE or result.left_behind or result.error is not None:
        assert not result.success
    assert (result.exit_code == 0) == result.success


@given(RESULTS)
def test_no_key_is_ever_missing(result: RunResult) -> None:
    assert {
        "success", "operation", "policy", "run_id", "stop_reason", "dry_run", "details", "cutoffs",
        "batches", "seconds", "phases", "oldest_expired_age_seconds", "warnings", result.total_key,
    } <= set(result.as_dict())  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (StopReason.EXHAUSTED, 0),
        (StopReason.DRY_RUN, 0),
        (StopReason.ERROR, 1),
        (StopReason.TIME_BUDGET, 2),
        (StopReason.ROW_BUDGET, 2),
        (StopReason.STOPPED, 2),
        (StopReason.PAUSED, 2),
        (StopReason.LOCK_LOST, 2),
        (StopReason.THROTTLED, 2),
        (StopReason.LOCKED, 3),
    ],
)
def test_every_stop_reason_has_its_exit_code(reason: StopReason, code: int) -> None:
    assert RunResult(operation="o", policy="p", run_id="r", stop_reason=reason).exit_code == code


def test_a_run_that_left_a_row_behind_is_partial() -> None:
    left = RunResult(
        operation="o", policy="p", run_id="r", stop_reason=StopReason.EXHAUSTED, left_behind=1
    )

    assert (left.success, left.exit_code) == (False, 2)


def test_cutoffs_and_phases_are_written_for_machines() -> None:
    result = RunResult(
        operation="o",
        policy="p",
        run_id="r",
        stop_reason=StopReason.EXHAUSTED,
        cutoffs={"expired": datetime(2026, 1, 2, tzinfo=UTC)},
        phases=Phases(probe=0.123456),
    )

    shape = result.as_dict()
    assert shape["cutoffs"] == {"expired": "2026-01-02T00:00:00+00:00"}
    assert shape["phases"]["probe"] == 0.1235


@pytest.mark.parametrize(
    ("plan", "success"),
    [
        ({"counted": "exact", "counted_all": True}, True),
        ({"counted": "estimate", "counted_all": False}, True),
        ({"counted": "partly", "counted_all": False}, False),
        ({"counted_all": False}, False),
        ({}, True),
    ],
)
def test_a_dry_run_is_a_success_unless_its_count_was_cut_short(
    plan: dict[str, object], *, success: bool
) -> None:
    told = RunResult(
        operation="tables.purge",
        policy="p",
        run_id="r",
        stop_reason=StopReason.DRY_RUN,
        dry_run=True,
        plan=plan,
    )

    assert told.success is success
