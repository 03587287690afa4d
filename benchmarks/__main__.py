"""python -m benchmarks: measure, compare, and say which promises hold on this machine."""

import argparse
import os
import time

from benchmarks import contest
from benchmarks.archiving import archiving
from benchmarks.beside_pgbench import ROUNDS, beside_pgbench
from benchmarks.figures import Figure, table_of
from benchmarks.memory import memory
from benchmarks.nothing_expired import nothing_expired
from benchmarks.partitions import partitions
from benchmarks.stage import Stage, Table
from benchmarks.steadiness import WINDOWS, of_the_loop, steadiness
from benchmarks.workers import workers

# A run has 40 ms of its own before its first window: a twelfth of what one raw DELETE takes for 2 M.
FULL_ROWS = 4_000_000
BUSY = 0.5


def main() -> int:
    """Run everything; 1 only when asked to be strict and a target was missed."""
    options = _options()
    begun = time.monotonic()
    busy = os.getloadavg()[0]
    if busy > BUSY:
        print(f"load {busy:.1f}: others use this machine too, and ratios suffer from that")
    with Stage() as stage:
        figures = _measure(stage, options)
    print(f"\n{table_of(figures)}\n\n{time.monotonic() - begun:.0f} s in all")
    if options.rows < FULL_ROWS:
        print(f"the targets are for {FULL_ROWS:,} rows: a run's fixed cost weighs more on fewer")
    missed = any(figure.met is False for figure in figures)
    return 1 if options.strict and missed else 0


def _measure(stage: Stage, options: argparse.Namespace) -> list[Figure]:
    print(f"{stage.server}: a table of {options.rows:,} rows", flush=True)
    table = stage.events(options.rows)
    print("\nthe same rows, deleted by each", flush=True)
    alone = contest.contest(stage, table, options.rounds, options.loop_seconds)
    print("\nwhile a snapshot is held", flush=True)
    beside = contest.contest_beside_a_report(stage, table, options.rounds, options.loop_seconds)
    print("\nexpired rows strewn among those that stay, no index on their age", flush=True)
    loose = stage.strewn(options.rows)
    strewn = contest.contest_strewn(stage, loose, options.rounds, options.loop_seconds)
    print(f"\nmedians\n{contest.medians(alone)}")
    print(f"medians while a snapshot is held\n{contest.medians(beside)}")
    print(f"medians, strewn\n{contest.medians(strewn)}")
    figures = contest.figures(alone, beside, strewn)
    print(f"\nbatches of one size, {WINDOWS} and more of them", flush=True)
    figures += steadiness(stage, table, options.rounds)
    figures += of_the_loop(table, alone[contest.LOOP][-1], beside[contest.LOOP][-1])
    figures += _further(stage, table, loose, options)
    print("\nmemory", flush=True)
    figures += memory(stage, table)
    if not options.skip_ten_million:
        print("\nnothing expired", flush=True)
        figures.append(nothing_expired(stage))
    return figures


def _further(stage: Stage, table: Table, loose: Table, options: argparse.Namespace) -> list[Figure]:
    print("\nthe same rows, archived by each", flush=True)
    figures = archiving(stage, table, loose, options.rounds, options.loop_seconds)
    print("\na whole partition", flush=True)
    figures += partitions(stage, options.rounds)
    print("\nthe same rows, by one worker and by two", flush=True)
    figures += workers(stage, loose, stage.families(options.rows // 4), options.rounds)
    print("\nwhat pgbench feels beside each", flush=True)
    figures += beside_pgbench(
        stage, stage.strewn(options.rows, "busy"), max(ROUNDS, options.rounds)
    )
    return figures


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rows", type=int, default=FULL_ROWS, help="of the table (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions (%(default)s)")
    parser.add_argument(
        "--loop-seconds",
        type=float,
        default=60.0,
        help="after which the usual loop is cut off (%(default)s)",
    )
    parser.add_argument(
        "--skip-ten-million", action="store_true", help="leave the 10 M row table out"
    )
    parser.add_argument("--strict", action="store_true", help="exit 1 when a target is missed")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
