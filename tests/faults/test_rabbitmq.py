"""What RabbitMQ hands out to whom, on real workers."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded.rabbitmq import RabbitServer
from embedded.valkey import ValkeyServer
from tests import rabbit as rabbitmq
from tests.conditions import wait_until
from tests.faults.stack import Stack

pytestmark = rabbitmq.needed


@pytest.fixture
def on_rabbit(rabbit: RabbitServer, tmp_path: Path) -> Iterator[Stack]:
    with ValkeyServer() as valkey:
        stack = Stack(valkey, tmp_path)
        stack.use_broker(rabbit.url(), {"confirm_publish": True})
        try:
            yield stack
        finally:
            stack.end()


def test_each_worker_takes_one_task_and_what_neither_can_do_yet_waits_for_whoever_is_free(
    on_rabbit: Stack,
    rabbit: RabbitServer,
) -> None:
    on_rabbit.workers(2)
    on_rabbit.publish("short", 1)
    on_rabbit.publish("long", 4)
    on_rabbit.publish("third")

    wait_until(lambda: len(on_rabbit.journal("started")) == 2, 10, otherwise=on_rabbit.logs)
    assert rabbitmq.waiting(rabbit, "celery") == 1
    wait_until(lambda: on_rabbit.journal("ended", "third"), 5, otherwise=on_rabbit.logs)

    by_name = {each["name"]: each["worker"] for each in on_rabbit.journal("started")}
    assert not on_rabbit.journal("ended", "long")
    assert by_name["third"] == by_name["short"] != by_name["long"]


def test_a_killed_workers_task_is_handed_out_again_at_once(on_rabbit: Stack) -> None:
    first = on_rabbit.worker()
    on_rabbit.begin("long", 30)
    on_rabbit.worker()

    first.kill()

    wait_until(lambda: len(on_rabbit.journal("started", "long")) == 2, 3, otherwise=on_rabbit.logs)
    assert on_rabbit.journal("started", "long")[1]["redelivered"]


def test_a_frozen_workers_task_is_handed_out_again_after_two_heartbeats(on_rabbit: Stack) -> None:
    frozen = on_rabbit.worker(broker_heartbeat=1)
    on_rabbit.begin("long", 30)
    on_rabbit.worker()

    frozen.send(signal.SIGSTOP)

    wait_until(lambda: len(on_rabbit.journal("started", "long")) == 2, 10, otherwise=on_rabbit.logs)
