"""With RabbitMQ as the broker a run survives the same faults, and counts once."""

import signal
from collections.abc import Callable, Iterator

import pytest

from embedded.rabbitmq import RabbitServer
from embedded.valkey import ValkeyServer
from tests import rabbit as rabbitmq
from tests.conditions import stays_true, wait_until
from tests.faults.runs.conftest import Install
from tests.faults.runs.events import assert_finished_exactly_once

pytestmark = rabbitmq.needed

AWAY_SECONDS = 1.5
CONSUMER_TIMEOUT_MS = 2000  # a third of what the run takes


@pytest.fixture
def impatient_rabbit() -> Iterator[RabbitServer]:
    """One that takes back what is not acknowledged in two seconds, instead of half an hour."""
    with RabbitServer({"consumer_timeout": CONSUMER_TIMEOUT_MS}) as server:
        yield server


def test_a_killed_child_costs_a_retry_and_the_run_ends_once(
    install: Install, valkey: ValkeyServer, rabbit: RabbitServer
) -> None:
    installation = install("slow", valkey, broker_url=rabbit.url())
    worker = installation.worker()
    task_id = installation.send()
    installation.wait_for_windows(4)

    for child in worker.children():
        child.kill()

    assert_finished_exactly_once(installation, task_id, at_least_attempts=2)
    assert worker.running


def test_a_killed_workers_run_is_taken_over_by_another_and_ends_once(
    install: Install, valkey: ValkeyServer, rabbit: RabbitServer
) -> None:
    installation = install("slow", valkey, broker_url=rabbit.url())
    first = installation.worker()
    task_id = installation.send()
    installation.wait_for_windows(4)
    second = installation.worker()

    first.kill()

    assert_finished_exactly_once(installation, task_id, at_least_attempts=2)
    assert second.said(f"[{task_id}] received")
    wait_until(lambda: rabbitmq.waiting(rabbit) == 0, 5)


def killed(rabbit: RabbitServer) -> None:
    rabbit.kill()
    rabbit.start()


def away(rabbit: RabbitServer) -> None:
    rabbit.stop()
    stays_true(lambda: True, AWAY_SECONDS)  # the time is the fault: there is nothing to poll
    rabbit.start()


@pytest.mark.parametrize(("disturb", "concurrency"), [(killed, 1), (away, 2)])
def test_a_run_outlives_its_broker_and_its_second_delivery_adds_nothing(
    install: Install,
    valkey: ValkeyServer,
    rabbit: RabbitServer,
    disturb: Callable[[RabbitServer], None],
    concurrency: int,
) -> None:
    installation = install("slow", valkey, broker_url=rabbit.url())
    worker = installation.worker(f"--concurrency={concurrency}")
    task_id = installation.send()
    installation.wait_for_windows(2)

    disturb(rabbit)

    assert_finished_exactly_once(installation, task_id)
    assert worker.running
    # Whatever became of the second delivery: in the end nothing is left to do.
    told = f"[{task_id}] received"
    wait_until(lambda: worker.log().count(told) >= 2, 20, otherwise=installation.told)
    wait_until(lambda: worker.log().count("succeeded in") >= 2, 20, otherwise=installation.told)
    worker.send(signal.SIGTERM)
    assert worker.wait(within_seconds=20) == 0, worker.log()
    assert rabbitmq.waiting(rabbit) == 0
    assert_finished_exactly_once(installation, task_id)


def test_a_run_longer_than_the_consumer_timeout_ends_once_and_takes_no_worker_along(
    install: Install, valkey: ValkeyServer, impatient_rabbit: RabbitServer
) -> None:
    installation = install("slow", valkey, broker_url=impatient_rabbit.url())
    workers = [installation.worker(), installation.worker()]
    task_id = installation.send()

    wait_until(
        lambda: "delivery acknowledgement on channel" in installation.told(),
        20,
        otherwise=installation.told,
    )

    assert_finished_exactly_once(installation, task_id)
    assert all(worker.running for worker in workers), installation.told()
    # The message that was taken back has gone around, and answers now from the ledger.
    wait_until(
        lambda: installation.told().count("succeeded in") >= 2, 30, otherwise=installation.told
    )
    for worker in workers:
        worker.send(signal.SIGTERM)
        assert worker.wait(within_seconds=20) == 0, worker.log()
    assert_finished_exactly_once(installation, task_id)
