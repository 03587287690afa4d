"""Three ways to delete the same rows: one statement, the loop everybody writes, and ours."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from benchmarks.stage import Table, session
from housekeeping.engine.run import Recruit, Request, Surroundings
from housekeeping.operations.purge import purge
from housekeeping.policies.archive import ArchiveTo
from housekeeping.policies.events import Event, EventStream, WindowCommitted
from housekeeping.policies.pace import Pace
from housekeeping.policies.purge import Age, ExpiryRule, PartitionCare, PurgePolicy, TableName
from housekeeping.policies.result import RunResult, StopReason
from housekeeping.stores.redis.connection import connect as redis_at

LOOP_BATCH = 1_000


class Batch(NamedTuple):
    """One transaction."""

    rows: int
    seconds: float


@dataclass(frozen=True)
class Work:
    """What a contender did, and how long it took."""

    rows: int
    seconds: float
    batches: tuple[Batch, ...]
    deleting: float
    """seconds of `seconds` that went into the transactions which delete"""
    cut_off: bool = False
    """stopped before it was done: its rate is that of the part it did"""

    @property
    def rate(self) -> float:
        return self.rows / self.seconds

    @property
    def longest(self) -> float:
        return max((batch.seconds for batch in self.batches), default=0.0)


Contender = Callable[[Table], Work]


def raw_delete(table: Table) -> Work:
    """Baseline A: everything in one statement, one transaction."""
    with session(table.url) as cursor:
        cutoff = _cutoff(cursor, table)
        begun = time.perf_counter()
        cursor.execute(f"DELETE FROM {table.name} WHERE created_at < %s", (cutoff,))
        seconds = time.perf_counter() - begun
        return Work(cursor.rowcount, seconds, (Batch(cursor.rowcount, seconds),), seconds)


def usual_loop(table: Table, seconds: float) -> Work:
    """Baseline B: `id IN (SELECT id ... LIMIT 1000)` until nothing is left, or time is up."""
    delete = f"""
        DELETE FROM {table.name} WHERE id IN (
            SELECT id FROM {table.name} WHERE created_at < %s LIMIT {LOOP_BATCH})
    """
    batches: list[Batch] = []
    with session(table.url) as cursor:
        cutoff = _cutoff(cursor, table)
        begun = now = time.perf_counter()
        while (cut_off := now - begun < seconds) and (not batches or batches[-1].rows):
            cursor.execute(delete, (cutoff,))
            before, now = now, time.perf_counter()
            batches.append(Batch(cursor.rowcount, now - before))
    rows = sum(batch.rows for batch in batches)
    return Work(rows, now - begun, tuple(batches), now - begun, cut_off=not cut_off)


def ours(table: Table, redis_url: str, walker: str | None, pace: Pace | None = None) -> Work:
    """A real run: preflight, plan, lease, fence, ledger and all. It never rests."""
    batches: list[Batch] = []

    def listen(event: Event) -> None:
        if isinstance(event, WindowCommitted):
            batches.append(Batch(event.rows, event.seconds))

    result = run(table, redis_url, table.keep_for(), walker, listen, pace)
    deleting = result.phases.delete + result.phases.commit
    return Work(result.total, result.seconds, tuple(batches), deleting)


def run(
    table: Table,
    redis_url: str,
    keep_for: timedelta,
    walker: str | None = None,
    listen: Callable[[Event], None] = lambda _: None,
    pace: Pace | None = None,
    archive: ArchiveTo | None = None,
    partitions: PartitionCare = PartitionCare(),  # noqa: B008 - frozen
    recruit: Recruit | None = None,
) -> RunResult:
    """Purge or archive a table. Raises RuntimeError when the run did not go through all of it."""
    plain = policy_on(table, keep_for, pace or Pace(duty=1.0))
    policy = replace(plain, archive=archive, partitions=partitions)
    with redis_at(redis_url) as redis:
        around = Surroundings(redis, events=EventStream([listen]), recruit=recruit)
        result = purge(policy, Request(run_by="benchmarks", walker=walker), around)
    if result.stop_reason is not StopReason.EXHAUSTED:
        msg = f"the run on {table.name} ended as {result.stop_reason.value}: {result.error}"
        raise RuntimeError(msg)
    return result


def purged(table: Table, redis_url: str, pace: Pace) -> int:
    """Purge a table at a pace for as long as its time budget; return the rows that went."""
    policy = policy_on(table, table.keep_for(), pace)
    with redis_at(redis_url) as redis:
        return purge(policy, Request(run_by="benchmarks"), Surroundings(redis)).total


def policy_on(table: Table, keep_for: timedelta, pace: Pace) -> PurgePolicy:
    """Return what a run of ours is told; the same in every process that shares it."""
    return PurgePolicy(
        operation="tables.purge",
        name="benchmark",
        database_url=table.url,
        table=TableName(table.name),
        age=Age(columns=("created_at",)),
        rules=(ExpiryRule(reason="expired", keep_for=keep_for),),
        pace=pace,
    )


def _cutoff(cursor: Any, table: Table) -> datetime:
    cursor.execute("SELECT now() - %s", (table.keep_for(),))
    cutoff: datetime = cursor.fetchone()[0]
    return cutoff
