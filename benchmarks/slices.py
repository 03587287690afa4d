"""What cutting a delete into slices costs: the figures of decision 8.

    python -m benchmarks.slices [--rows 2000000] [--pages 12] [--rounds 3]

Deletes half of a strewn table, without a rest: by one DELETE, and in slices of so many pages whose
statement is planned each time (as the engine does), or once. From PostgreSQL 18 on once more where
pages are read by the slice's own process (`effective_io_concurrency = 0`), as the engine has them.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.stage import Stage, Table, session

_EXPIRED = "created_at < now() - %(keep_for)s"
_RANGE = "DELETE FROM strewn WHERE ctid >= $1 AND ctid < $2 AND created_at < now() - %(keep_for)s"
_PREPARE = f"PREPARE slice(tid, tid) AS {_RANGE}"
_PLANNED_EACH = """EXECUTE statement
            USING ('(' || block || ',0)')::tid, ('(' || block + pages || ',0)')::tid"""
_PLANNED_ONCE = """EXECUTE format('EXECUTE slice(%%L, %%L)',
            '(' || block || ',0)', '(' || block + pages || ',0)')"""
_LOOP = """
    DO $do$
    DECLARE
        statement text := $statement$ {statement} $statement$;
        block bigint := 0; pages bigint := {pages};
    BEGIN
        WHILE block < pg_relation_size('strewn') / 8192 LOOP
            {take};
            block := block + pages;
        END LOOP;
    END $do$
"""
_OWN_READS = "SET effective_io_concurrency = 0"
_OWN_READS_SINCE = 180_000


@dataclass(frozen=True)
class Form:
    """One way to delete the same rows."""

    name: str
    delete: str
    prepared: bool = False
    own_reads: bool = False


def main() -> int:
    options = _options()
    with Stage() as stage:
        table = stage.strewn(options.rows)
        seconds: dict[str, list[float]] = {}
        slices = 1
        for _ in range(options.rounds):
            for form in _forms(stage, options.pages):
                with stage.copy_of(table) as copy:
                    slices = _pages(copy) // options.pages
                    seconds.setdefault(form.name, []).append(_taken(copy, form))
    print(
        f"{stage.server}: {slices:,} slices of {options.pages} pages, medians of {options.rounds}"
    )
    for name, taken in seconds.items():
        each = 1_000 * median(taken) / slices
        print(f"  {name:<45} {median(taken):6.2f} s, {each:.3f} ms a slice")
    return 0


def _forms(stage: Stage, pages: int) -> Iterator[Form]:
    each = _LOOP.format(statement=_RANGE, pages=pages, take=_PLANNED_EACH)
    once = _LOOP.format(statement="", pages=pages, take=_PLANNED_ONCE)
    yield Form("one DELETE", f"DELETE FROM strewn WHERE {_EXPIRED}")
    yield Form("slices, each planned", each)
    yield Form("slices, planned once", once, prepared=True)
    with stage.administrator() as server:
        if server.connection.server_version >= _OWN_READS_SINCE:
            yield Form("slices, each planned, reading by themselves", each, own_reads=True)
            yield Form("slices, planned once, reading by themselves", once, True, own_reads=True)


def _taken(copy: Table, form: Form) -> float:
    """Return the seconds a form takes."""
    values: dict[str, Any] = {"keep_for": copy.keep_for()}
    with session(copy.url) as cursor:
        cursor.execute("SET plan_cache_mode = force_generic_plan")
        if form.own_reads:
            cursor.execute(_OWN_READS)
        if form.prepared:
            cursor.execute(_PREPARE, values)
        begun = time.perf_counter()
        cursor.execute(form.delete, values)
        return time.perf_counter() - begun


def _pages(copy: Table) -> int:
    with session(copy.url) as cursor:
        cursor.execute("SELECT pg_relation_size(%s) / 8192", (copy.name,))
        return int(cursor.fetchone()[0])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.slices")
    parser.add_argument("--rows", type=int, default=2_000_000, help="of the table (%(default)s)")
    parser.add_argument("--pages", type=int, default=12, help="of a slice (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
