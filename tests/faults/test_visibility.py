"""A visibility timeout shorter than the tasks, on real processes."""

import signal
import time

from tests.conditions import wait_until
from tests.faults.probe import VISIBILITY_TIMEOUT_S
from tests.faults.stack import Stack

_LONGER_S = VISIBILITY_TIMEOUT_S + 3
_SWEEP_S = 1  # the probe's unacked_restore_interval


def test_tasks_that_run_or_wait_longer_than_the_timeout_run_once(stack: Stack) -> None:
    stack.workers(2)
    stack.begin("long", _LONGER_S)

    stack.publish("later", countdown=_LONGER_S - 1)

    stack.assert_ran_once("later", _LONGER_S + 5)
    stack.assert_ran_once("long", _LONGER_S)


def test_a_killed_workers_task_is_delivered_again_within_about_the_timeout(stack: Stack) -> None:
    workers = stack.workers(2)
    stack.begin("long", 60)
    (run,) = stack.journal("started", "long")
    (doomed,) = (worker for worker in workers if worker.said(f"{run['worker']} ready"))

    doomed.kill()
    killed = time.time()

    wait_until(lambda: len(stack.journal("started", "long")) == 2, 60, otherwise=stack.logs)
    again = stack.journal("started", "long")[1]
    assert again["redelivered"]
    assert again["at"] - killed < VISIBILITY_TIMEOUT_S + _SWEEP_S + 2


def test_a_task_that_outlasts_its_workers_warm_shutdown_runs_once(stack: Stack) -> None:
    leaving = stack.worker()
    stack.begin("long", _LONGER_S)
    stack.worker()

    leaving.send(signal.SIGTERM)

    stack.assert_ran_once("long", _LONGER_S + 5)
    wait_until(lambda: not leaving.running, 10)
    assert leaving.exit_code == 0, leaving.log()
