"""A run's progress as the Celery state PROGRESS, which Flower and the command line show."""

import logging
from collections.abc import Iterator
from typing import Any

from celery import Task
from celery.result import AsyncResult

from housekeeping.policies.events import (
    Event,
    RunStarted,
    RunWaiting,
    StepProgress,
    WindowCommitted,
)
from housekeeping.stores.background import Background

_log = logging.getLogger("housekeeping.progress")
STATE = "PROGRESS"
_EVERY_SECONDS = 0.5
_PATIENCE_SECONDS = 5.0
_COUNTS_TABLES = "database.drop_expired_archives"


class CeleryProgress(Background):
    """Subscribes to a run's events and stores the latest as the task's state.

    A thread of its own writes it: while the result backend is away Celery retries inside the call,
    and a run must not wait for that.
    """

    def __init__(self, task: Task) -> None:
        super().__init__(
            "progress",
            _EVERY_SECONDS,
            "progress is no longer stored",
            leave_within=_PATIENCE_SECONDS,
        )
        self._task = task
        self._task_id: str | None = None if task.request.called_directly else task.request.id
        self._latest: dict[str, Any] | None = None

    def __call__(self, event: Event) -> None:
        meta = progress_of(event)
        if meta is not None:
            self._latest = meta

    def _wanted(self) -> bool:
        return self._task_id is not None

    def _work(self, ticks: Iterator[None]) -> None:
        for _ in ticks:
            latest, self._latest = self._latest, None
            if latest is None:
                continue
            try:
                self._task.update_state(task_id=self._task_id, state=STATE, meta=latest)
            except Exception as error:  # noqa: BLE001 - any backend's; progress is not worth a run
                _log.warning("progress could not be stored: %s", error)


def reported(answer: AsyncResult[Any]) -> tuple[str, dict[str, Any] | None]:
    """Return a task's state and, while it is PROGRESS, what `progress_of` said; both of one moment.

    `answer.state` and `answer.info` ask the backend once each: a task that ended in between looks as
    if it were at work, with its result for progress.
    """
    meta = answer.backend.get_task_meta(answer.id)
    state, told = str(meta["status"]), meta["result"]
    return state, told if state == STATE and isinstance(told, dict) else None


def progress_of(event: Event) -> dict[str, Any] | None:
    """Return done, total, percent and a message for an event that tells them; else None.

    `total` is the planner's estimate of rows, or what is done where that is more.
    """
    who = {"operation": event.operation, "policy": event.policy, "run_id": event.run_id}
    if isinstance(event, RunStarted):
        message = f"{event.policy}: walking {event.table}, {event.walk}"
        return {**who, "done": 0, "total": event.estimate, "percent": 0, "message": message}
    if isinstance(event, WindowCommitted):
        counted = "tables" if event.operation == _COUNTS_TABLES else "rows"
        message = f"{event.policy}: {event.done:,} {counted}"
        return {
            **who,
            "done": event.done,
            "total": event.estimate,
            "percent": event.percent,
            "message": message,
        }
    if isinstance(event, StepProgress):
        message = f"{event.policy}: {event.step}, {event.phase}"
        told = {"done": event.done, "total": event.total, "percent": event.percent}
        return {**who, **told, "message": message}
    if isinstance(event, RunWaiting):
        message = f"{event.policy}: waiting for {event.cause}"
        return {
            **who,
            "done": event.done,
            "total": event.estimate,
            "percent": event.percent,
            "message": message,
        }
    return None
