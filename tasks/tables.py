"""Any table a user describes under [tables.NAME]."""

from typing import Any

from celery import Task

from housekeeping.operations.purge import purge as purge_table
from housekeeping.policies.errors import ConfigurationRefused
from tasks.application import app
from tasks.configuration import MAX_RETRIES, RETRY_DELAY_SECONDS
from tasks.running import perform


@app.task(
    bind=True,
    name="tasks.tables.purge",
    max_retries=MAX_RETRIES,
    default_retry_delay=RETRY_DELAY_SECONDS,
    throws=(ConfigurationRefused,),  # told in a line: no traceback helps against a setting
)
def purge(
    self: Task, policy: str | None = None, *, dry_run: bool = False, limit: int | None = None
) -> dict[str, Any]:
    """Delete the expired rows of every table that has a policy, or of one.

    Default: none; what expires is said by the policy's age, keep_for or statuses, and where.
    Danger:  rows are gone for good, and with them rows that refer to them ON DELETE CASCADE.
    Result:  total_deleted; details tells rows by reason, and rows of cascading tables by table.
    """
    return perform(self, "tables.purge", purge_table, policy=policy, dry_run=dry_run, limit=limit)
