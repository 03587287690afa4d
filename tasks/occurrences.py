"""Milvaion's job occurrences."""

from typing import Any, Unpack

from celery import Task

from tasks.operation_task import operation_task
from tasks.running import Asked, perform


@operation_task(name="tasks.occurrences.retention")
def retention(self: Task, policy: str | None = None, **asked: Unpack[Asked]) -> dict[str, Any]:
    """Delete finished job occurrences, and their log rows, that are past their retention.

    Why:     upstream's nightly job reads every older row again in each batch, and destroys
             unresolved dead letters by cascade.
    Default: completed, cancelled, timed out and skipped 30 days, failed and unknown 90 days, by
             EndTime, or CreatedAt where EndTime is null.
    Keeps:   occurrences with a dead letter that is unresolved or younger than its own retention,
             and those of workflow runs still going.
    Danger:  rows are gone for good.
    Result:  total_deleted counts occurrences; details tells them by status, and logs.
    """
    return perform(self, "occurrences.retention", policy, **asked)
