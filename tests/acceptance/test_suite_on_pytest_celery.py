"""Our own app on pytest-celery's nodes: a worker and a broker that are killed and come back."""

from typing import Any

import pytest
from celery.result import AsyncResult
from pytest_celery import CeleryTestSetup

from housekeeping.policies.errors import ConfigurationRefused

ANSWER_WITHIN_SECONDS = 30


def purge_on(setup: CeleryTestSetup) -> AsyncResult[Any]:
    """Send a run that is refused at once: its policy is not there. It needs no database."""
    from tasks.tables import purge  # at the top, pytest would have it look for its settings

    return purge.apply_async(kwargs={"policy": "nobody"}, queue=setup.worker.worker_queue)


def assert_answered(answer: AsyncResult[Any]) -> None:
    with pytest.raises(ConfigurationRefused, match=r'tables\.purge has no policy "nobody"'):
        answer.get(timeout=ANSWER_WITHIN_SECONDS)


def test_a_task_goes_through_the_broker_to_a_worker_and_its_answer_comes_back(
    celery_setup: CeleryTestSetup,
) -> None:
    assert celery_setup.ready(ping=False, control=True)

    assert_answered(purge_on(celery_setup))

    celery_setup.worker.assert_log_exists("tasks.tables.purge")
    assert celery_setup.worker.hostname() in str(celery_setup.app.control.ping())


def test_a_task_sent_while_the_worker_is_dead_is_done_when_it_is_back(
    celery_setup: CeleryTestSetup,
) -> None:
    celery_setup.worker.kill()
    assert celery_setup.worker.container.status == "exited"
    answer = purge_on(celery_setup)

    celery_setup.worker.restart()

    assert_answered(answer)


def test_worker_and_client_go_on_after_a_restart_of_the_broker(
    celery_setup: CeleryTestSetup,
) -> None:
    assert_answered(purge_on(celery_setup))

    celery_setup.broker.restart()

    assert_answered(purge_on(celery_setup))
    assert celery_setup.worker.container.status == "running"
