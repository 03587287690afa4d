"""A worker dies or is told to leave in the middle of a run: the run goes on, and counts once."""

import signal

import pytest

from embedded.valkey import ValkeyServer
from tasks.results import RunFailed
from tests.faults.runs.conftest import Install
from tests.faults.runs.events import (
    EXPIRED,
    assert_finished_exactly_once,
    assert_windows_add_up,
)


@pytest.mark.parametrize("template", ["indexed", "slow"])
def test_a_killed_child_costs_a_retry_and_the_run_ends_once(
    install: Install, valkey: ValkeyServer, template: str
) -> None:
    installation = install(template, valkey)
    worker = installation.worker()
    task_id = installation.send()
    installation.wait_for_windows(4)

    for child in worker.children():
        child.kill()

    assert_finished_exactly_once(installation, task_id, at_least_attempts=2)
    assert worker.running


@pytest.mark.parametrize("template", ["resting", "slow"])
def test_a_killed_workers_run_is_taken_over_by_another_and_ends_once(
    install: Install, valkey: ValkeyServer, template: str
) -> None:
    installation = install(template, valkey)
    first = installation.worker()
    task_id = installation.send()
    installation.wait_for_windows(4)

    first.kill()
    installation.worker()

    result = assert_finished_exactly_once(installation, task_id, at_least_attempts=2)
    assert 0 < sum(window["rows"] for window in installation.windows()[:4]) < EXPIRED
    assert result["batches"] == len(installation.windows())


def test_a_worker_asked_to_leave_quickly_hands_its_run_on_and_it_ends_once(
    install: Install, valkey: ValkeyServer
) -> None:
    installation = install("slow", valkey)
    first = installation.worker("--", "worker.soft_shutdown_timeout=1", REMAP_SIGTERM="SIGQUIT")
    task_id = installation.send()
    installation.wait_for_windows(4)

    first.send(signal.SIGTERM)

    assert first.wait(within_seconds=15) == 0, first.log()
    (run,) = installation.runs()
    assert run["ended_at"] is None, "the run was over before the worker left"
    installation.worker()
    assert_finished_exactly_once(installation, task_id, at_least_attempts=2)


def test_a_worker_that_leaves_softly_lets_a_short_run_end(
    install: Install, valkey: ValkeyServer
) -> None:
    installation = install("resting", valkey, tables__events__duty=0.5)
    # The run takes a few seconds, more on a busy machine.
    worker = installation.worker("--", "worker.soft_shutdown_timeout=20", REMAP_SIGTERM="SIGQUIT")
    task_id = installation.send()
    installation.wait_for_windows(2)

    worker.send(signal.SIGTERM)

    assert worker.wait(within_seconds=40) == 0, worker.log()
    assert_finished_exactly_once(installation, task_id)
    assert installation.runs()[0]["attempts"] == 1


def test_a_worker_that_is_terminated_waits_for_its_run(
    install: Install, valkey: ValkeyServer
) -> None:
    installation = install("slow", valkey)
    worker = installation.worker()
    task_id = installation.send()
    installation.wait_for_windows(2)

    worker.send(signal.SIGTERM)

    assert worker.wait(within_seconds=40) == 0, worker.log()
    assert_finished_exactly_once(installation, task_id)
    assert installation.runs()[0]["attempts"] == 1


@pytest.mark.parametrize("template", ["resting", "slow"])
def test_a_soft_time_limit_ends_the_run_with_a_true_account(
    install: Install, valkey: ValkeyServer, template: str
) -> None:
    installation = install(template, valkey)
    worker = installation.worker()

    task_id = installation.send(soft_time_limit=1, time_limit=15)

    answer = installation.outcome(task_id)
    assert answer.state == "FAILURE"
    (run,) = installation.runs()
    assert run["ended_at"] is not None, installation.told()
    assert (run["stop_reason"], run["success"]) == ("error", False)
    assert 0 < run["total"] < EXPIRED
    assert_windows_add_up(installation)
    assert "SoftTimeLimitExceeded" in run["error"]
    assert isinstance(answer.result, RunFailed)
    assert answer.result.result["total_deleted"] == run["total"]
    assert worker.running
    # What is left goes with the next run: the lease is free, no statement is left behind.
    again = installation.outcome(installation.send())
    assert again.result["success"], again.result
    assert again.result["total_deleted"] == EXPIRED - run["total"]


def test_a_child_that_hangs_is_killed_by_the_hard_limit_and_the_next_run_settles_its_account(
    install: Install, valkey: ValkeyServer
) -> None:
    installation = install("slow", valkey)
    worker = installation.worker()
    hung = installation.send(soft_time_limit=1, time_limit=2)
    installation.wait_for_windows(1)
    (child,) = worker.children()

    child.suspend()  # hears neither the soft limit nor anything else

    assert installation.outcome(hung).state == "FAILURE"
    again = installation.outcome(installation.send())
    first, second = installation.runs()
    assert (first["stop_reason"], first["success"]) == ("error", False), installation.told()
    assert again.result["total_deleted"] == second["total"] == EXPIRED - first["total"]
    assert_windows_add_up(installation)
