"""What a dry run predicts, and what the run then takes: seconds and WAL, on five shapes of tables.

    python -m benchmarks.price [--rows 400000] [--rounds 3]

Each shape is made once; every round gets a fresh copy of it after a checkpoint, asks a dry run for
its price and runs. WAL is what the whole server wrote meanwhile; nobody else writes.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.figures import Figure, table_of
from benchmarks.stage import Stage, Table
from housekeeping.engine.run import Request, Surroundings
from housekeeping.operations.purge import purge
from housekeeping.policies.archive import ArchiveTo
from housekeeping.policies.pace import Pace
from housekeeping.policies.purge import Age, ExpiryRule, PurgePolicy, TableName
from housekeeping.stores.redis.connection import connect as redis_at

MOST_FACTOR = 2.0
_ROWS = """
    CREATE TABLE {name} AS
    SELECT i AS id, now() - {age} * %(step)s AS created_at, (i %% 5)::int AS status,
           gen_random_uuid() AS correlation_id, repeat(md5(i::text), 3) AS payload
    FROM generate_series(1::bigint, %(rows)s) AS i
"""
_IN_ORDER = "(%(rows)s - i)"
_STREWN = "(i * 7919 %% %(rows)s)"
_KEY = "ALTER TABLE {name} ADD PRIMARY KEY (id)"
_BY_AGE = "CREATE INDEX ON {name} (created_at)"
_CHILDREN = (
    "CREATE TABLE lines AS SELECT i AS of, n, repeat('x', 60) AS text"
    " FROM generate_series(1::bigint, %(rows)s) AS i, generate_series(1, 3) AS n",
    "CREATE INDEX ON lines (of)",
    "ALTER TABLE lines ADD FOREIGN KEY (of) REFERENCES family ON DELETE CASCADE",
)


@dataclass(frozen=True)
class Shape:
    """A table, and how much of it expired."""

    name: str
    told: str
    statements: tuple[str, ...]
    expired: float
    archived: bool = False


SHAPES = (
    Shape("ordered", "half, in the age's order, by the heap", (_ROWS, _KEY, _BY_AGE), 0.5),
    Shape("little", "a tenth, in the age's order, by the index", (_ROWS, _KEY, _BY_AGE), 0.1),
    Shape("strewn", "a twentieth, strewn, no index", (_ROWS.replace("{age}", _STREWN), _KEY), 0.05),
    Shape("family", "a third, three child rows each", (_ROWS, _KEY, _BY_AGE, *_CHILDREN), 0.3),
    Shape("kept", "a third, archived by month", (_ROWS, _KEY, _BY_AGE), 0.3, archived=True),
)


@dataclass(frozen=True)
class Round:
    """One dry run and the run after it."""

    told: dict[str, Any]
    seconds: float
    wal: int
    rows: int


def main() -> int:
    """Measure every shape; 1 where a prediction is further off than a factor of two."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.price", description=__doc__)
    parser.add_argument("--rows", type=int, default=400_000, help="of the table (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions (%(default)s)")
    parser.add_argument("--only", choices=[shape.name for shape in SHAPES], help="one shape")
    options = parser.parse_args()
    figures: list[Figure] = []
    with Stage() as stage:
        print(f"{stage.server}: tables of {options.rows:,} rows", flush=True)
        for shape in SHAPES:
            if options.only in (None, shape.name):
                figures += _measure(stage, shape, options.rows, options.rounds)
    print(f"\n{table_of(figures)}")
    return 0 if all(figure.met for figure in figures) else 1


def _measure(stage: Stage, shape: Shape, rows: int, rounds: int) -> list[Figure]:
    filled = [
        text.replace("{age}", _IN_ORDER).replace("{name}", shape.name) for text in shape.statements
    ]
    table = stage.made(shape.name, rows, *filled)
    print(f"\n{shape.name}: {shape.told}", flush=True)
    done = [_round(stage, table, shape) for _ in range(rounds)]
    return [
        _compared(f"{shape.told}: seconds", [(one.told["seconds"], one.seconds) for one in done]),
        _compared(
            f"{shape.told}: MB of WAL",
            [(one.told["wal_bytes"] / 1e6, one.wal / 1e6) for one in done],
        ),
    ]


def _compared(name: str, pairs: Sequence[tuple[float, float]]) -> Figure:
    told, taken = median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)
    factor = told / taken
    near = 1 / MOST_FACTOR <= factor <= MOST_FACTOR
    return Figure(name, f"{told:.2f} for {taken:.2f}: {factor:.2f} x", "within 2 x", near)


def _round(stage: Stage, table: Table, shape: Shape) -> Round:
    with stage.copy_of(table) as copy, redis_at(stage.redis_url) as redis:
        policy = _policy(copy, shape)
        told = purge(policy, Request(run_by="benchmarks", dry_run=True), Surroundings(redis)).plan
        assert told is not None
        before = _wal(stage)
        result = purge(policy, Request(run_by="benchmarks"), Surroundings(redis))
        wal = _wal(stage) - before
    cost = dict(told["cost"])
    print(
        f"  {result.total:,} rows, {told['walks'][0]}: told {cost['seconds']:.2f} s"
        f" ({cost['worked_seconds']:.2f} worked, {cost['times_the_model']} x),"
        f" {cost['batches']} batches,"
        f" {cost['wal_bytes'] / 1e6:.1f} MB; took {result.seconds:.2f} s"
        f" ({result.phases.delete + result.phases.commit:.2f} worked), {result.batches} batches,"
        f" {wal / 1e6:.1f} MB",
        flush=True,
    )
    return Round(cost, result.seconds, wal, result.total)


def _policy(table: Table, shape: Shape) -> PurgePolicy:
    keep_for = table.keep_for(shape.expired)
    return PurgePolicy(
        operation="tables.archive" if shape.archived else "tables.purge",
        name="benchmark",
        database_url=table.url,
        table=TableName(table.name),
        age=Age(columns=("created_at",)),
        rules=(ExpiryRule(reason="expired", keep_for=keep_for),),
        pace=Pace(),
        archive=ArchiveTo(prefix=table.name) if shape.archived else None,
    )


def _wal(stage: Stage) -> int:
    with stage.administrator() as cursor:
        cursor.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
        return int(cursor.fetchone()[0])


if __name__ == "__main__":
    raise SystemExit(main())
