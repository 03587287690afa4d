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


@operation_task(name="tasks.occurrences.archive")
def archive(self: Task, policy: str | None = None, **asked: Unpack[Asked]) -> dict[str, Any]:
    """Move finished job occurrences, with their log rows and dead letters, to dated tables.

    Why:     upstream's own job reads a column its schema never had, and drops columns it does not
             know.
    Default: completed, failed, cancelled and timed out ones after 90 days, to
             `JobOccurrences_Archive_2024_01` by the UTC month a row ended in.
    Keeps:   occurrences with an unresolved dead letter, and those of workflow runs still going.
    Danger:  queries of the application no longer see these rows; they are where the result says.
    Result:  total_archived counts occurrences; details tells them by status, logs and dead letters;
             tables tells what each dated table got.
    """
    return perform(self, "occurrences.archive", policy, **asked)
