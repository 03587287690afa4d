"""Any table a user describes under [tables.NAME]."""

from typing import Any, Unpack

from celery import Task

from tasks.operation_task import operation_task
from tasks.running import Asked, perform


@operation_task(name="tasks.tables.purge")
def purge(self: Task, policy: str | None = None, **asked: Unpack[Asked]) -> dict[str, Any]:
    """Delete the expired rows of every table that has a policy, or of one.

    Default: none; what expires is said by the policy's age, keep_for or statuses, and where.
    Danger:  rows are gone for good, and with them rows that refer to them ON DELETE CASCADE.
    Result:  total_deleted; details tells rows by reason, and rows of cascading tables by table.
    """
    return perform(self, "tables.purge", policy, **asked)


@operation_task(name="tasks.tables.archive")
def archive(self: Task, policy: str | None = None, **asked: Unpack[Asked]) -> dict[str, Any]:
    """Move the expired rows of every table that has an archive, or of one, to dated tables.

    Default: none; what expires is said by the policy, where it goes by its section `archive`.
    Danger:  queries on the table no longer see these rows; they are where the result says.
    Result:  total_archived; details tells rows by reason, and rows of cascading tables by table;
             tables tells what each dated table got.
    """
    return perform(self, "tables.archive", policy, **asked)
