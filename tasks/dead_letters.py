"""Milvaion's dead letters: job occurrences that failed for good."""

from typing import Any

from celery import Task

from housekeeping.operations.purge import purge
from housekeeping.policies.errors import ConfigurationRefused
from tasks.application import app
from tasks.configuration import MAX_RETRIES, RETRY_DELAY_SECONDS
from tasks.running import perform


@app.task(
    bind=True,
    name="tasks.dead_letters.cleanup",
    max_retries=MAX_RETRIES,
    default_retry_delay=RETRY_DELAY_SECONDS,
    throws=(ConfigurationRefused,),  # told in a line: no traceback helps against a setting
)
def cleanup(
    self: Task, policy: str | None = None, *, dry_run: bool = False, limit: int | None = None
) -> dict[str, Any]:
    """Delete dead letters that are past their retention, counted from FailedAt.

    Default: 180 days for resolved and unresolved ones alike; each can be set.
    Danger:  rows are gone for good; their occurrences are left to occurrence retention.
    Result:  total_deleted; details tells resolved and unresolved.
    """
    return perform(self, "dead_letters.cleanup", purge, policy=policy, dry_run=dry_run, limit=limit)
