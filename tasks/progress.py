"""A run's progress as the Celery state PROGRESS, which Flower and the command line show."""

import logging
import threading
from types import TracebackType
from typing import Any, Self

from celery import Task

from housekeeping.policies.events import (
    Event,
    RunStarted,
    RunWaiting,
    StepProgress,
    WindowCommitted,
)

_log = logging.getLogger("housekeeping.progress")
STATE = "PROGRESS"
_EVERY_SECONDS = 0.5
_PATIENCE_SECONDS = 5.0


class CeleryProgress:
    """Subscribes to a run's events and stores the latest as the task's state.

    A thread of its own writes it: while the result backend is away Celery retries inside the call,
    and a run must not wait for that.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._task_id: str | None = None if task.request.called_directly else task.request.id
        self._latest: dict[str, Any] | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True, name="progress")

    def __enter__(self) -> Self:
        if self._task_id is not None:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(_PATIENCE_SECONDS)

    def __call__(self, event: Event) -> None:
        meta = progress_of(event)
        if meta is not None:
            self._latest = meta

    def _write(self) -> None:
        while not self._ended.wait(_EVERY_SECONDS):
            latest, self._latest = self._latest, None
            if latest is None:
                continue
            try:
                self._task.update_state(task_id=self._task_id, state=STATE, meta=latest)
            except Exception as error:  # noqa: BLE001 - any backend's; progress is not worth a run
                _log.warning("progress could not be stored: %s", error)


def progress_of(event: Event) -> dict[str, Any] | None:
    """Return done, total, percent and a message for an event that tells them; else None.

    `total` is the planner's estimate of rows, or what is done where that is more.
    """
    who = {"operation": event.operation, "policy": event.policy, "run_id": event.run_id}
    if isinstance(event, RunStarted):
        message = f"{event.policy}: walking {event.table}, {event.walk}"
        return {**who, "done": 0, "total": event.estimate, "percent": 0, "message": message}
    if isinstance(event, WindowCommitted):
        message = f"{event.policy}: {event.done:,} rows"
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
