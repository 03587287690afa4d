"""A shared run with RabbitMQ as the broker: the same messages, the same account."""

from collections.abc import Callable

import pytest

from embedded.rabbitmq import RabbitServer
from embedded.valkey import ValkeyServer
from tests import rabbit as rabbitmq
from tests.conditions import wait_until
from tests.faults.runs.conftest import Install
from tests.faults.runs.installation import Installation
from tests.faults.runs.sharing import SHARED, assert_shared_exactly_once, begin, helpers, owner

pytestmark = rabbitmq.needed


@pytest.fixture
def shared(
    install: Install, valkey: ValkeyServer, rabbit: RabbitServer
) -> Callable[[], Installation]:
    return lambda: install("slow", valkey, **SHARED, broker_url=rabbit.url())


def test_three_workers_share_a_run(
    shared: Callable[[], Installation], rabbit: RabbitServer
) -> None:
    installation = shared()
    _, task_id = begin(installation)

    assert assert_shared_exactly_once(installation, task_id)["workers"] == 3
    wait_until(lambda: rabbitmq.waiting(rabbit) == 0, 5)


def test_a_killed_helpers_range_is_taken_over_and_every_row_goes_once(
    shared: Callable[[], Installation],
) -> None:
    installation = shared()
    workers, task_id = begin(installation)

    helpers(workers)[0].kill()

    assert_shared_exactly_once(installation, task_id)


def test_a_killed_owners_run_goes_on_with_its_helpers_and_ends_once(
    shared: Callable[[], Installation],
) -> None:
    installation = shared()
    workers, task_id = begin(installation)

    owner(workers).kill()

    assert_shared_exactly_once(installation, task_id, at_least_attempts=2)


def test_late_messages_find_nothing_to_do(
    shared: Callable[[], Installation], rabbit: RabbitServer
) -> None:
    installation = shared()
    worker = installation.worker()
    task_id = installation.send()

    assert "workers" not in assert_shared_exactly_once(installation, task_id)
    wait_until(
        lambda: worker.log().count("the run has ended") == 2, 20, otherwise=installation.told
    )
    wait_until(lambda: rabbitmq.waiting(rabbit) == 0, 5)
