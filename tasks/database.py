"""The databases themselves: dated tables of archived rows."""

from typing import Any, Unpack

from celery import Task

from tasks.operation_task import operation_task
from tasks.running import Asked, perform


@operation_task(name="tasks.database.drop_expired_archives")
def drop_expired_archives(
    self: Task, policy: str | None = None, **asked: Unpack[Asked]
) -> dict[str, Any]:
    """Drop dated tables of archived rows past their age, after exporting them where asked to.

    Why:     nobody drops them upstream; a month of occurrences and logs is gigabytes.
    Default: none; without a keep_for nothing goes.
    Keeps:   whatever the ledger does not prove to be ours and complete, and what a view, a foreign
             key or a partitioned table depends on.
    Danger:  without export_to the rows are gone for good.
    Result:  total_cleaned counts tables; details tells tables and rows dropped and exported;
             tables tells what became of each, and why one stayed.
    """
    return perform(self, "database.drop_expired_archives", policy, **asked)
