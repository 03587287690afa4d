"""What the result of a run says of each partition, read from the ledger: true for resumed runs too."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from housekeeping.operations.partitions.steps import DETACHED, DROPPED, EXPORTED, LOCKED, WALK
from housekeeping.policies.purge import PartitionCare
from housekeeping.stores.postgres.detached_ledger import Retired, retired_by
from housekeeping.stores.postgres.window_ledger import WalkSummary, summaries_by_target

ESTIMATED = "rows of whole partitions are the planner's estimates"


def partition_keys(care: PartitionCare) -> tuple[str, ...]:
    """Return the keys whole partitions have in the details of every run of a policy."""
    exported = () if care.export is None else (EXPORTED,)
    return (DETACHED, *exported, DROPPED)


def partition_entries(
    connection: Connection, run_id: UUID, done: str
) -> tuple[dict[str, Any], ...]:
    """Return one entry a partition; `done` is what became of rows that went one by one."""
    retired = [_of_whole(each) for each in retired_by(connection, run_id)]
    whole = {each["table"] for each in retired}
    walks = [
        walk
        for walk in summaries_by_target(connection, run_id)
        # What an earlier attempt could not do, and a later one did.
        if walk.walk != WALK or walk.left_behind or walk.target not in whole
    ]
    return (*retired, *_of_walks(walks, done))


def _of_whole(retired: Retired) -> dict[str, Any]:
    until = retired.drop_after.isoformat() if retired.drop_after else None
    entry = {
        "table": retired.table,
        "done": "dropped" if retired.dropped else "detached",
        "why": "its grace is over" if retired.dropped else f"all of it expired: {retired.bounds}",
        "rows": retired.rows,
        "bytes": retired.bytes,
        "drop_after": until,
    }
    return entry if retired.exported_to is None else {**entry, "exported_to": retired.exported_to}


def _of_walks(walks: list[WalkSummary], done: str) -> Iterator[dict[str, Any]]:
    for walk in walks:
        if walk.walk not in (WALK, LOCKED) and (walk.rows or walk.left_behind):
            told = walk.error or "its rows went one by one"
            yield {"table": walk.target, "done": done, "why": told, "rows": walk.rows}
        elif walk.walk == LOCKED and not walk.left_behind:
            continue  # a later attempt of the run came through
        elif walk.walk in (WALK, LOCKED) and (walk.left_behind or walk.error):
            yield {"table": walk.target, "done": "left", "why": walk.error, "rows": 0}
