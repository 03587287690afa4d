"""The databases themselves: their upkeep, and dated tables of archived rows."""

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


@operation_task(name="tasks.database.maintain")
def maintain(self: Task, policy: str | None = None, **asked: Unpack[Asked]) -> dict[str, Any]:
    """Vacuum, analyze and reindex what needs it, beside everybody's work.

    Why:     upstream's weekly job does all of it whether or not there is need, blocks writers while
             it reindexes, and reports success when every table failed.
    Default: VACUUM from 50,000 dead rows and 2 % on, or 70 % of the age that forces autovacuum;
             ANALYZE after it, or from 10,000 changed rows and 5 % on; REINDEX CONCURRENTLY of at
             most 4 indexes of 256 MB and more that are bloated by 30 %. `limit` counts tables.
    Yields:  whatever it does ends when somebody has waited for it for 5 s.
    Danger:  a rebuild takes twice the index's size on disk for its time.
    Result:  total_cleaned counts dead rows removed, as far as the statistics tell; tables says what
             was done to each and why, with size, dead rows and bloat before and after.
    """
    return perform(self, "database.maintain", policy, **asked)
