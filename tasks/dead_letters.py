"""Milvaion's dead letters: job occurrences that failed for good."""

from typing import Any, Unpack

from celery import Task

from tasks.operation_task import operation_task
from tasks.running import Asked, perform


@operation_task(name="tasks.dead_letters.cleanup")
def cleanup(self: Task, policy: str | None = None, **asked: Unpack[Asked]) -> dict[str, Any]:
    """Delete dead letters that are past their retention, counted from FailedAt.

    Default: 180 days for resolved and unresolved ones alike; each can be set.
    Danger:  rows are gone for good; their occurrences are left to occurrence retention.
    Result:  total_deleted; details tells resolved and unresolved.
    """
    return perform(self, "dead_letters.cleanup", policy, **asked)
