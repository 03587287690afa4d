"""What a lost broker connection does to the tasks of a worker, on real processes."""

import signal

import pytest

from tests.conditions import stays_true, wait_until
from tests.faults.probe import VISIBILITY_TIMEOUT_S
from tests.faults.stack import CeleryProcess, Stack

_BACK = "the broker is back"


def _begin(stack: Stack, name: str, seconds: float) -> None:
    stack.publish(name, seconds)
    wait_until(lambda: stack.journal("started", name), 10, otherwise=stack.logs)


def _assert_ran_once(stack: Stack, name: str, within_seconds: float) -> None:
    wait_until(lambda: stack.journal("ended", name), within_seconds, otherwise=stack.logs)
    wait_until(lambda: stack.unsettled() == 0, 10, otherwise=stack.logs)
    assert len(stack.journal("started", name)) == 1, stack.logs()


def test_a_running_task_outlives_a_reset_of_all_connections_and_runs_once(stack: Stack) -> None:
    worker = stack.worker("--concurrency=2")
    _begin(stack, "long", 5)

    stack.reset_connections()

    _assert_ran_once(stack, "long", 15)
    assert worker.running


def test_a_running_task_outlives_a_killed_broker_and_is_acked_when_it_is_back(
    stack: Stack,
) -> None:
    worker = stack.worker("--concurrency=2")
    _begin(stack, "long", 5)

    stack.valkey.kill()
    worker.wait_until_it_says("Trying again in 2.00 seconds")
    stack.valkey.start()

    _assert_ran_once(stack, "long", 15)
    assert worker.running


def test_a_task_that_ends_while_the_broker_is_away_is_acked_on_the_next_connection(
    stack: Stack,
) -> None:
    worker = stack.worker("--concurrency=2")
    _begin(stack, "short", 1.5)

    stack.valkey.kill()
    wait_until(lambda: stack.journal("ended", "short"), 10, otherwise=stack.logs)
    assert worker.running, worker.log()
    stack.valkey.start()
    worker.wait_until_it_says(_BACK)

    _assert_ran_once(stack, "short", 15)


def test_an_outage_longer_than_the_visibility_timeout_brings_no_twin(stack: Stack) -> None:
    for _ in range(2):
        stack.worker("--concurrency=2")
    for name in ("one", "two"):
        _begin(stack, name, 12)

    stack.valkey.kill()
    begun = stack.journal("started")[-1]["at"]
    stays_true(lambda: True, VISIBILITY_TIMEOUT_S + 1)  # the time is the fault: nothing to poll
    stack.valkey.start()

    for name in ("one", "two"):
        _assert_ran_once(stack, name, 20)
    assert begun
