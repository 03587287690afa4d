"""What a lost broker connection does to the tasks of a worker, on real processes."""

import signal
import time
from pathlib import Path
from typing import Any

import pytest
from kombu.connection import Connection

from tasks import redis_broker
from tests.conditions import wait_until
from tests.faults.probe import VISIBILITY_TIMEOUT_S
from tests.faults.stack import Stack


def test_a_running_task_outlives_a_reset_of_all_connections_and_runs_once(stack: Stack) -> None:
    worker = stack.worker("--concurrency=2")
    stack.begin("long", 3)

    stack.reset_connections()

    stack.assert_ran_once("long", 12)
    assert worker.running


def test_threads_outlive_a_reset_too(stack: Stack) -> None:
    stack.worker("--concurrency=2", "--pool=threads")
    stack.begin("long", 3)

    stack.reset_connections()

    stack.assert_ran_once("long", 12)


def test_a_running_task_outlives_a_killed_broker_and_is_acked_when_it_is_back(
    stack: Stack,
) -> None:
    worker = stack.worker("--concurrency=2")
    stack.begin("long", 3)

    stack.valkey.kill()
    worker.wait_until_it_says("Trying again in 2.00 seconds")
    stack.valkey.start()

    stack.assert_ran_once("long", 12)
    assert worker.running


def test_a_task_that_ends_while_the_broker_is_away_is_acked_on_the_next_connection(
    stack: Stack,
) -> None:
    worker = stack.worker("--concurrency=2")
    stack.begin("short", 1)

    stack.valkey.kill()
    wait_until(lambda: stack.journal("ended", "short"), 10, otherwise=stack.logs)
    stack.valkey.start()

    worker.wait_until_it_is_back()
    stack.assert_ran_once("short", 10)


def test_an_outage_longer_than_the_visibility_timeout_brings_no_twin(stack: Stack) -> None:
    stack.workers(2, "--concurrency=2")
    for name in ("one", "two"):
        stack.begin(name, VISIBILITY_TIMEOUT_S + 4)

    stack.valkey.kill()
    over = time.monotonic() + VISIBILITY_TIMEOUT_S + 1
    wait_until(lambda: time.monotonic() > over, VISIBILITY_TIMEOUT_S + 2)
    stack.valkey.start()

    for name in ("one", "two"):
        stack.assert_ran_once(name, 15)


def test_a_message_nobody_works_on_goes_back_at_once(stack: Stack) -> None:
    worker = stack.worker(worker_prefetch_multiplier=2)
    stack.begin("long", 3)
    stack.publish("waiting")
    wait_until(lambda: stack.unacked() == 2, 10, otherwise=stack.logs)

    stack.reset_connections()

    worker.wait_until_it_is_back()
    stack.assert_ran_once("long", 12)
    stack.assert_ran_once("waiting", 5)
    (run,) = stack.journal("started", "waiting")
    assert run["redelivered"]


@pytest.mark.parametrize("ballast", [0, 1_000_000], ids=["unconfirmed", "half written"])
def test_a_task_on_its_way_into_the_pool_runs_once(stack: Stack, ballast: int) -> None:
    worker = stack.worker()
    stack.begin("first", 0)  # until then the pool does not write to its child
    stack.assert_ran_once("first", 5)
    (child,) = worker.children()
    child.suspend()
    stack.publish("slow to begin", 0.5, ballast=ballast)
    wait_until(stack.unacked, 5, otherwise=stack.logs)

    stack.reset_connections()
    worker.wait_until_it_says("Connection to broker lost")
    child.resume()

    stack.assert_ran_once("slow to begin", 10)
    assert worker.running


def test_a_busy_worker_takes_nothing_more_after_a_reset_than_before(stack: Stack) -> None:
    busy = stack.worker()
    stack.begin("long", 5)
    stack.reset_connections()
    busy.wait_until_it_is_back()

    stack.publish("short")
    idle = stack.worker()

    wait_until(lambda: stack.journal("ended", "short"), 4, otherwise=stack.logs)
    assert not stack.journal("ended", "long")
    assert stack.journal("started", "short")[0]["worker"] != stack.journal("started")[0]["worker"]
    assert idle.running


def test_a_broker_that_came_back_empty_still_learns_what_runs(forgetful_stack: Stack) -> None:
    stack = forgetful_stack
    worker = stack.worker()
    stack.begin("long", 30)
    stack.valkey.kill()
    stack.valkey.start()
    worker.wait_until_it_is_back()
    heir = stack.worker()

    worker.kill()

    wait_until(lambda: len(stack.journal("started", "long")) == 2, 12, otherwise=stack.logs)
    assert heir.running


def test_a_cold_shutdown_after_a_reset_hands_the_running_task_back(stack: Stack) -> None:
    worker = stack.worker()
    stack.begin("long", 30)
    stack.reset_connections()
    worker.wait_until_it_is_back()

    worker.send(signal.SIGQUIT)

    wait_until(lambda: not worker.running, 10, otherwise=stack.logs)
    assert (stack.unacked(), stack.queued()) == (0, 1)


def test_an_ack_the_broker_was_too_slow_for_is_repeated(stack: Stack) -> None:
    worker = stack.worker(broker_transport_options={"socket_timeout": 0.3})
    stack.begin("short", 1)
    with stack.client() as client:
        client.client_pause(timeout=3000, all=True)

    wait_until(lambda: stack.journal("ended", "short"), 10, otherwise=stack.logs)
    worker.wait_until_it_says("Couldn't ack")

    stack.assert_ran_once("short", 20)
    stack.begin("next", 0)


def test_other_brokers_keep_the_stock_behaviour(stack: Stack, tmp_path: Path) -> None:
    rabbit: Any = Connection("amqp://")  # type: ignore[no-untyped-call]
    assert not redis_broker.is_redis(rabbit)
    assert redis_broker.redis_channels(rabbit) == []

    for folder in ("messages", "processed"):
        (tmp_path / folder).mkdir()
    stack.use_broker(
        "filesystem://",
        {
            "data_folder_in": f"{tmp_path}/messages",
            "data_folder_out": f"{tmp_path}/messages",
            "control_folder": f"{tmp_path}/processed",
            "processed_folder": f"{tmp_path}/processed",
        },
    )
    worker = stack.worker("--pool=solo", "--without-heartbeat")
    stack.begin("short", 0)
    wait_until(lambda: stack.journal("ended", "short"), 5, otherwise=stack.logs)
    assert worker.running
