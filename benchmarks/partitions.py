"""What a whole partition costs to get rid of: detached by one run and dropped by the next, against a
DELETE of the same rows. WAL is what standbys, archives and backups pay for.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from statistics import median

from benchmarks.contenders import run
from benchmarks.figures import Figure
from benchmarks.stage import Stage, Table, session
from housekeeping.policies.purge import PartitionCare

ROWS = 1_500_000
MOST_WAL_BYTES = 1_000_000
MOST_SECONDS = 1.0
_KEEP_FOR = timedelta(days=365)  # the old partition ended in 2020
_NO_GRACE = PartitionCare(grace=timedelta(0))
_MB = 1_000_000


@dataclass(frozen=True)
class Cost:
    """What something took, and what it wrote to the WAL."""

    seconds: float
    wal: int

    def __str__(self) -> str:
        return f"{self.seconds:6.3f} s, {self.wal / _MB:8.3f} MB of WAL"


def partitions(stage: Stage, rounds: int, rows: int = ROWS) -> list[Figure]:
    """Measure detaching, dropping and a raw DELETE, each on copies of one table."""
    table = stage.parted(rows)
    raw, detached, dropped = [], [], []
    for _ in range(rounds):
        with stage.copy_of(table) as copy:
            raw.append(_cost_of(stage, partial(_delete, copy)))
        with stage.copy_of(table) as copy:
            detached.append(_cost_of(stage, partial(_retire, stage, copy, "partitions_detached")))
            dropped.append(_cost_of(stage, partial(_retire, stage, copy, "partitions_dropped")))
        print(f"  raw DELETE  {raw[-1]}\n  detaching   {detached[-1]}\n  dropping    {dropped[-1]}")
    away = [_sum(*pair) for pair in zip(detached, dropped, strict=True)]
    seconds, wal = _middle(away)
    name = f"a partition of {rows / _MB:.1f} M rows, detached and dropped"
    drop_seconds, drop_wal = _middle(dropped)
    raw_seconds, raw_wal = _middle(raw)
    return [
        Figure(f"{name}: WAL", f"{wal / _MB:.2f} MB", "< 1 MB", wal < MOST_WAL_BYTES),
        Figure(f"{name}: time of both runs", f"{seconds:.2f} s", "< 1 s", seconds < MOST_SECONDS),
        Figure(f"{name}: the drop alone", f"{drop_seconds:.2f} s, {drop_wal / _MB:.2f} MB"),
        Figure(f"{name}: WAL of a raw DELETE / ours", f"{raw_wal / wal:,.0f} x"),
        Figure(f"{name}: time of a raw DELETE / ours", f"{raw_seconds / seconds:,.1f} x"),
    ]


def _cost_of(stage: Stage, work: Callable[[], None]) -> Cost:
    before, begun = _wal(stage), time.perf_counter()
    work()
    return Cost(time.perf_counter() - begun, _wal(stage) - before)


def _wal(stage: Stage) -> int:
    with stage.administrator() as cursor:
        cursor.execute("SELECT pg_current_wal_insert_lsn() - '0/0'")
        return int(cursor.fetchone()[0])


def _delete(table: Table) -> None:
    with session(table.url) as cursor:
        cursor.execute(f"DELETE FROM {table.name} WHERE created_at < '2021-01-01'")


def _retire(stage: Stage, table: Table, done: str) -> None:
    """Run once: detaches what expired, and drops what an earlier run detached."""
    result = run(table, stage.redis_url, _KEEP_FOR, partitions=_NO_GRACE)
    if result.details[done] != 1 or not result.success:
        msg = f"the run on {table.name} has {done} {result.details[done]}: {result.warnings}"
        raise RuntimeError(msg)


def _sum(one: Cost, other: Cost) -> Cost:
    return Cost(one.seconds + other.seconds, one.wal + other.wal)


def _middle(costs: list[Cost]) -> tuple[float, float]:
    return median(cost.seconds for cost in costs), median(cost.wal for cost in costs)
