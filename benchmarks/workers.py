"""One run by one worker, and by two that share it: each a process of its own, as in production.

Rows with children cost processor time, and two cores give twice as much of it. Bare rows go as fast as
their WAL is written, whoever deletes them: two raw sessions beside them tell how much there is to gain.

The one that helps waits for its turn with everything imported: `python -m benchmarks.workers
DATABASE REDIS TABLE ROWS deletes|archives`, and the run's id on its stdin.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from statistics import median
from uuid import UUID

from benchmarks.contenders import policy_on, run
from benchmarks.figures import Figure
from benchmarks.stage import Stage, Table, session
from housekeeping.engine.run import Recruit, Surroundings
from housekeeping.operations.shared_runs.sharing import share
from housekeeping.policies.archive import ArchiveTo
from housekeeping.policies.pace import Pace
from housekeeping.policies.policy import Policy
from housekeeping.policies.result import RunResult
from housekeeping.stores.redis.connection import connect as redis_at

LEAST_RATIO = 1.3
ARCHIVE = ArchiveTo(prefix="old")
_ALONE = Pace(duty=1.0)
_SHARED = replace(_ALONE, workers=2, split_above_rows=1)


def workers(stage: Stage, bare: Table, families: Table, rounds: int) -> list[Figure]:
    """Delete, and archive, the same rows by one worker and by two, in turn."""
    figures = []
    for table, rows in ((families, "rows with children"), (bare, "bare rows")):
        for does, archive in (("archives", ARCHIVE), ("deletes", None)):
            name = f"two workers / one, {does} {rows}"
            ratio = _compare(stage, table, rounds, archive, does)
            if table is bare and archive is None:
                figures.append(Figure(name, f"{ratio:.2f} x"))
            else:
                figures.append(Figure(name, f"{ratio:.2f} x", ">= 1.3 x", ratio >= LEAST_RATIO))
    gain = _raw_gain(stage, bare, rounds)
    return [*figures, Figure("two raw sessions / one, deletes bare rows", f"{gain:.2f} x")]


def _compare(
    stage: Stage, table: Table, rounds: int, archive: ArchiveTo | None, does: str
) -> float:
    alone, shared = [], []
    for _ in range(rounds):
        with stage.copy_of(table) as copy:
            alone.append(_run(stage, copy, archive, _ALONE))
        with stage.copy_of(table) as copy, helper(copy, stage.redis_url, does) as recruit:
            shared.append(_run(stage, copy, archive, _SHARED, recruit))
        one, two = alone[-1], shared[-1]
        if two.workers == 1:
            raise RuntimeError("the second worker came too late; give the table more rows")
        print(
            f"  one worker {one.total / one.seconds:>11,.0f} rows/s, {one.seconds:.2f} s; "
            f"two {two.total / two.seconds:>11,.0f} rows/s, {two.seconds:.2f} s, {two.batches} windows",
            flush=True,
        )
    # Round by round: a slow minute of the machine hits both.
    return median(one.seconds / two.seconds for one, two in zip(alone, shared, strict=True))


def _raw_gain(stage: Stage, table: Table, rounds: int) -> float:
    """Return how much faster two sessions delete half of the blocks each than one deletes all."""
    gains = []
    for _ in range(rounds):
        seconds = []
        for sessions in (1, 2):
            with stage.copy_of(table) as copy:
                seconds.append(_raw(copy, sessions))
        gains.append(seconds[0] / seconds[1])
    return median(gains)


def _raw(table: Table, sessions: int) -> float:
    cutoff = datetime.now(UTC) - table.keep_for()
    with session(table.url) as cursor:
        cursor.execute("SELECT pg_relation_size(%s) / 8192", (table.name,))
        share = cursor.fetchone()[0] // sessions + 1

    def delete(part: int) -> None:
        with session(table.url) as cursor:
            cursor.execute(
                f"DELETE FROM {table.name} WHERE ctid >= %s::tid AND ctid < %s::tid"
                " AND created_at < %s",
                (f"({part * share},0)", f"({(part + 1) * share},0)", cutoff),
            )

    begun = time.perf_counter()
    with ThreadPoolExecutor(sessions) as threads:
        list(threads.map(delete, range(sessions)))
    return time.perf_counter() - begun


def _run(
    stage: Stage,
    table: Table,
    archive: ArchiveTo | None,
    pace: Pace,
    recruit: Recruit | None = None,
) -> RunResult:
    keep_for, redis_url = table.keep_for(), stage.redis_url
    return run(table, redis_url, keep_for, "heap", pace=pace, archive=archive, recruit=recruit)


@contextmanager
def helper(table: Table, redis_url: str, does: str) -> Iterator[Recruit]:
    """Keep a second worker ready; yields what calls it to a run."""
    arguments = [table.url, redis_url, table.name, str(table.rows), does]
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.workers", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()  # it is ready
        asked = process.stdin

        def recruit(policy: Policy, run_id: UUID, count: int) -> None:  # noqa: ARG001
            asked.write(f"{run_id}\n")
            asked.flush()

        yield recruit


def _help(url: str, redis_url: str, name: str, rows: str, does: str) -> None:
    table = Table(name, url, int(rows))
    plain = policy_on(table, table.keep_for(), _SHARED)
    policy = replace(plain, archive=ARCHIVE if does == "archives" else None)
    with redis_at(redis_url) as redis:
        print("ready", flush=True)
        if asked := sys.stdin.readline().strip():
            share(policy, UUID(asked), "second@benchmarks", Surroundings(redis))


if __name__ == "__main__":
    _help(*sys.argv[1:])
