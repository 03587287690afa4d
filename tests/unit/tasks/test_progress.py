"""What a task says of itself is read in one look, however it changes meanwhile."""

from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from celery.backends.cache import CacheBackend
from celery.result import AsyncResult

from tasks.command_line.run import _wait
from tasks.progress import STATE, reported

AT_WORK = {"done": 1, "total": 2, "percent": 50, "message": "slow: 1 rows"}
RESULT = {"success": True, "total_deleted": 2}


class EndingWhenLookedAt(CacheBackend):
    """A backend whose task ends after so many looks at it."""

    looks = 1

    def get_task_meta(self, task_id: str, cache: bool = True) -> dict[str, Any]:  # noqa: FBT001, FBT002
        seen: dict[str, Any] = super().get_task_meta(task_id, cache=cache)
        self.looks -= 1
        if self.looks == 0:
            self.store_result(task_id, RESULT, "SUCCESS")
        return seen


class Shown:
    """Takes what progress lines would show."""

    def __init__(self) -> None:
        self.all: list[Any] = []

    def show(self, progress: Any) -> None:
        self.all.append(progress)


@pytest.fixture
def answer() -> AsyncResult[Any]:
    app = Celery(broker="memory://", backend="cache+memory://")
    backend = EndingWhenLookedAt(app=app, url="memory://")
    task_id = str(uuid4())  # the memory behind memory:// is one for all tests
    backend.store_result(task_id, AT_WORK, STATE)
    return AsyncResult(task_id, backend=backend, app=app)


def test_state_and_progress_are_of_one_moment(answer: AsyncResult[Any]) -> None:
    assert reported(answer) == (STATE, AT_WORK)
    assert reported(answer) == ("SUCCESS", None)


def test_a_task_nobody_knows_reports_nothing(answer: AsyncResult[Any]) -> None:
    assert reported(AsyncResult("another", backend=answer.backend, app=answer.app)) == (
        "PENDING", None,
    )  # fmt: skip


@pytest.mark.parametrize("looks", range(1, 6))
def test_a_task_that_ends_while_it_is_watched_shows_no_result_for_progress(
    answer: AsyncResult[Any], looks: int
) -> None:
    shown = Shown()
    answer.backend.looks = looks

    assert _wait(answer, shown, lambda: True) == RESULT  # type: ignore[arg-type]
    assert all("message" in progress for progress in shown.all)
