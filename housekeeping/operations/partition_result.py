"""What the result of a run says of each partition, read from the ledger: true for resumed runs too."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from housekeeping.operations.partition_steps import DETACHED, DROPPED, WALK
from housekeeping.stores.postgres.detached_ledger import Retired, retired_by
from housekeeping.stores.postgres.window_ledger import WalkSummary, summaries_by_target

PARTITION_KEYS = (DETACHED, DROPPED)
ESTIMATED = "rows of whole partitions are the planner's estimates"


def partition_entries(
    connection: Connection, run_id: UUID, done: str
) -> tuple[dict[str, Any], ...]:
    """Return one entry a partition; `done` is what became of rows that went one by one."""
    retired = [_of_whole(each) for each in retired_by(connection, run_id)]
    return (*retired, *_of_walks(summaries_by_target(connection, run_id), done))


def _of_whole(retired: Retired) -> dict[str, Any]:
    until = retired.drop_after.isoformat() if retired.drop_after else None
    return {
        "table": retired.table,
        "done": "dropped" if retired.dropped else "detached",
        "why": "its grace is over" if retired.dropped else f"all of it expired: {retired.bounds}",
        "rows": retired.rows,
        "bytes": retired.bytes,
        "drop_after": until,
    }


def _of_walks(walks: list[WalkSummary], done: str) -> Iterator[dict[str, Any]]:
    for walk in walks:
        if walk.walk != WALK and (walk.rows or walk.left_behind):
            told = walk.error or "it holds younger rows too"
            yield {"table": walk.target, "done": done, "why": told, "rows": walk.rows}
        elif walk.walk == WALK and walk.left_behind:
            yield {"table": walk.target, "done": "left", "why": walk.error, "rows": 0}
