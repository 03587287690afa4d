"""Three ways to move the same rows to an archive: one statement, the usual loop, and ours."""

import time
from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks.contenders import Batch, Work, run
from benchmarks.figures import Figure
from benchmarks.stage import Stage, Table, session, snapshot_held
from housekeeping.policies.archive import ArchiveTo
from housekeeping.policies.events import Event, WindowCommitted

RAW, LOOP, OURS = "one raw statement", "select, insert, delete", "ours"
LEAST_OF_RAW = 0.9
LEAST_TIMES_LOOP = 15.0
_LOOP_BATCH = 1_000

# The same table for the baselines as ours makes: the source's columns, two of its own, the key.
_TARGET = """
    CREATE TABLE moved (LIKE {table}, archived_at timestamptz NOT NULL, archived_by_run uuid NOT NULL,
                        PRIMARY KEY (id))
"""
_MOVE = """
    WITH gone AS (DELETE FROM {table} WHERE created_at < %(cutoff)s RETURNING *)
    INSERT INTO moved SELECT *, now(), '00000000-0000-0000-0000-000000000000' FROM gone
"""
_SELECT = "SELECT id FROM {table} WHERE created_at < %(cutoff)s LIMIT {batch}"
_INSERT = """
    INSERT INTO moved SELECT *, now(), '00000000-0000-0000-0000-000000000000'
    FROM {table} WHERE id = ANY(%(ids)s)
"""
_DELETE = "DELETE FROM {table} WHERE id = ANY(%(ids)s)"


def archiving(
    stage: Stage, table: Table, loose: Table, rounds: int, loop_seconds: float
) -> list[Figure]:
    """Let each move the expired rows of its own copy: in the order they grew with an index on their
    age, alone and while a report holds its snapshot; and strewn among those that stay, without one.
    """
    both = (RAW, OURS, OURS, RAW)
    alone = _contest(stage, table, both * rounds, loop_seconds)
    beside = _contest(stage, table, (OURS,) * rounds, loop_seconds, reporting=True)
    strewn = _contest(stage, loose, both * rounds, loop_seconds)
    of_raw, of_raw_strewn = _ratio(alone, RAW), _ratio(strewn, RAW)
    return [
        Figure("archive / raw move", f"{of_raw:.2f} x", ">= 0.9 x", of_raw >= LEAST_OF_RAW),
        Figure("archive / raw move, strewn", f"{of_raw_strewn:.2f} x"),
        # Its best case: nobody else there, rows in the order they expire, indexed.
        Figure("archive / select-insert-delete loop", f"{_ratio(alone, LOOP):.0f} x"),
        _of_loop(", snapshot held", beside),
        _of_loop(", strewn, no index", strewn),
    ]


def _of_loop(where: str, works: dict[str, list[Work]]) -> Figure:
    times = _ratio(works, LOOP)
    name = f"archive / select-insert-delete loop{where}"
    return Figure(name, f"{times:.0f} x", ">= 15 x", times >= LEAST_TIMES_LOOP)


def _contest(
    stage: Stage,
    table: Table,
    order: Sequence[str],
    loop_seconds: float,
    *,
    reporting: bool = False,
) -> dict[str, list[Work]]:
    works: dict[str, list[Work]] = {RAW: [], LOOP: [], OURS: []}
    for name in (LOOP, *order):
        with stage.copy_of(table) as copy, snapshot_held(copy, wanted=reporting):
            if name == OURS:
                work = _ours(copy, stage.redis_url)
            else:
                work = _raw(copy) if name == RAW else _loop(copy, loop_seconds)
        works[name].append(work)
        print(
            f"  {name:<22} {work.rows:>9,} rows in {work.seconds:5.2f} s: {work.rate:>9,.0f}/s",
            flush=True,
        )
    return works


def _ratio(works: dict[str, list[Work]], baseline: str) -> float:
    ours, theirs = (median(work.rate for work in works[name]) for name in (OURS, baseline))
    return ours / theirs


def _ours(table: Table, redis_url: str) -> Work:
    batches: list[Batch] = []

    def listen(event: Event) -> None:
        if isinstance(event, WindowCommitted):
            batches.append(Batch(event.rows, event.seconds))

    to = ArchiveTo(prefix=f"{table.name}_archive")
    result = run(table, redis_url, table.keep_for(), "heap", listen, archive=to)
    deleting = result.phases.delete + result.phases.commit
    return Work(result.total, result.seconds, tuple(batches), deleting)


def _raw(table: Table) -> Work:
    with session(table.url) as cursor:
        values = _prepare(cursor, table)
        begun = time.perf_counter()
        cursor.execute(_MOVE.format(table=table.name), values)
        seconds = time.perf_counter() - begun
        return Work(cursor.rowcount, seconds, (Batch(cursor.rowcount, seconds),), seconds)


def _loop(table: Table, seconds: float) -> Work:
    batches: list[Batch] = []
    with session(table.url) as cursor:
        values = _prepare(cursor, table)
        begun = now = time.perf_counter()
        while now - begun < seconds:
            cursor.execute(_SELECT.format(table=table.name, batch=_LOOP_BATCH), values)
            ids = [row[0] for row in cursor.fetchall()]
            if not ids:
                break
            cursor.execute(_INSERT.format(table=table.name), {"ids": ids})
            cursor.execute(_DELETE.format(table=table.name), {"ids": ids})
            before, now = now, time.perf_counter()
            batches.append(Batch(len(ids), now - before))
    rows = sum(batch.rows for batch in batches)
    return Work(rows, now - begun, tuple(batches), now - begun)


def _prepare(cursor: Any, table: Table) -> dict[str, Any]:
    cursor.execute(_TARGET.format(table=table.name))
    cursor.execute("SELECT now() - %s", (table.keep_for(),))
    return {"cutoff": cursor.fetchone()[0]}
