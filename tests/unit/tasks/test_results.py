"""What a task answers for several policies, and how a failure travels."""

import json
import pickle
from collections.abc import Callable
from dataclasses import replace

import pytest

from housekeeping.policies.result import Phases, RunResult, StopReason
from tasks.results import RunFailed, combined, exit_code, worst

ONE = RunResult(
    operation="tables.purge",
    policy="events",
    run_id="1",
    stop_reason=StopReason.EXHAUSTED,
    total=3,
    details={"expired": 3},
    batches=2,
    phases=Phases(delete=0.5),
)


def test_one_policy_answers_with_its_own_result() -> None:
    assert combined("tables.purge", [ONE]) == ONE.as_dict()


def test_several_policies_answer_with_their_sum_and_each_run() -> None:
    other = replace(ONE, policy="audit", run_id="2", total=4, details={"expired": 4})

    answer = combined("tables.purge", [ONE, other])

    assert answer["total_deleted"] == 7
    assert answer["details"] == {"expired": 7}
    assert answer["policy"] == "events, audit"
    assert answer["phases"]["delete"] == 1.0
    assert [run["policy"] for run in answer["runs"]] == ["events", "audit"]
    assert set(ONE.as_dict()) <= set(answer)


def test_an_error_names_its_policy_once() -> None:
    refused = replace(ONE, error="events: no such table")
    failed = replace(ONE, policy="audit", error="the server's word")

    told = combined("tables.purge", [refused, failed])["error"]
    assert told == "events: no such table; audit: the server's word"


def test_a_sum_is_no_success_when_one_of_its_runs_is_none() -> None:
    held = replace(ONE, policy="audit", left_behind=1)

    answer = combined("tables.purge", [ONE, held])

    assert answer["success"] is False
    assert exit_code(answer) == 2


def test_no_policy_at_all_is_an_empty_success() -> None:
    answer = combined("tables.purge", [])

    assert (answer["success"], answer["total_deleted"], answer["runs"]) == (True, 0, [])


@pytest.mark.parametrize(
    ("reasons", "code"),
    [
        ([StopReason.EXHAUSTED, StopReason.EXHAUSTED], 0),
        ([StopReason.EXHAUSTED, StopReason.LOCKED], 3),
        ([StopReason.LOCKED, StopReason.TIME_BUDGET], 2),
        ([StopReason.ERROR, StopReason.LOCKED, StopReason.EXHAUSTED], 1),
    ],
)
def test_the_gravest_run_decides_the_exit_code(reasons: list[StopReason], code: int) -> None:
    answer = combined("tables.purge", [replace(ONE, stop_reason=reason) for reason in reasons])

    assert exit_code(answer) == code


def test_every_stop_reason_has_its_place_among_the_grave_ones() -> None:
    for reason in StopReason:
        assert worst([reason, StopReason.EXHAUSTED]) is reason


def _through_json(failure: RunFailed) -> RunFailed:
    return RunFailed(*json.loads(json.dumps(failure.args)))


def _through_pickle(failure: RunFailed) -> RunFailed:
    again: RunFailed = pickle.loads(pickle.dumps(failure))
    return again


@pytest.mark.parametrize("travel", [_through_json, _through_pickle])
def test_a_failure_arrives_with_its_result(travel: Callable[[RunFailed], RunFailed]) -> None:
    failure = travel(RunFailed("tables.purge: disk full", ONE.as_dict()))

    assert str(failure) == "tables.purge: disk full"
    assert failure.result["total_deleted"] == 3


def test_a_task_whose_policies_are_all_disabled_says_that_nothing_was_run() -> None:
    outcome = combined("tables.purge", [])

    assert outcome["success"]
    assert outcome["warnings"] == ["tables.purge: no policy is enabled, so nothing was run"]
