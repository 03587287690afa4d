"""Milvaion's job occurrences."""

from typing import Any

from celery import Task

from housekeeping.operations.purge import purge
from housekeeping.policies.errors import ConfigurationRefused
from tasks.application import app
from tasks.configuration import MAX_RETRIES, RETRY_DELAY_SECONDS
from tasks.running import perform


@app.task(
    bind=True,
    name="tasks.occurrences.retention",
    max_retries=MAX_RETRIES,
    default_retry_delay=RETRY_DELAY_SECONDS,
    throws=(ConfigurationRefused,),  # told in a line: no traceback helps against a setting
)
def retention(
    self: Task, policy: str | None = None, *, dry_run: bool = False, limit: int | None = None
) -> dict[str, Any]:
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
    return perform(
        self, "occurrences.retention", purge, policy=policy, dry_run=dry_run, limit=limit
    )
