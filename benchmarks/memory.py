"""Peak memory of a process that purges N rows, and of one that purges four times as many.

Each is a process of its own: `python -m benchmarks.memory DATABASE REDIS TABLE ROWS SHARE WALKER`.
"""

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.contenders import run
from benchmarks.figures import Figure
from benchmarks.stage import EXPIRED_SHARE, Stage, Table
from benchmarks.steadiness import windows_of

MOST_RATIO = 1.1
MOST_GROWTH_MB = 10.0
_TIMES = 4
_WINDOW_ROWS = 1_000  # small: what a run kept for each window would show
_STATUS = Path("/proc/self/status")


def memory(stage: Stage, table: Table) -> list[Figure]:
    """Compare how far the peaks rise while N and 4 N rows are deleted, by each walker."""
    return [_compare(stage, table, walker) for walker in ("heap", "index")]


def _compare(stage: Stage, table: Table, walker: str) -> Figure:
    grown = []
    for share in (EXPIRED_SHARE / _TIMES, EXPIRED_SHARE):
        with stage.copy_of(table) as copy:
            answer = _in_a_process_of_its_own(copy, stage.redis_url, share, walker)
        grown.append(max(0.1, answer["grown_mb"]))
        print(
            f"  {walker:<5} {answer['rows']:>9,} rows, {answer['windows']} windows: "
            f"peak {answer['peak_mb']:.1f} MB, {answer['grown_mb']:+.1f} MB since before the run",
            flush=True,
        )
    ratio = grown[1] / grown[0]
    measured = f"{ratio:.2f} x  (+{grown[0]:.1f} -> +{grown[1]:.1f} MB)"
    flat = ratio <= MOST_RATIO or grown[1] < MOST_GROWTH_MB
    return Figure(
        f"{walker} walker, peak memory grown by 4 N rows / by N rows",
        measured,
        "<= 1.1 x or < 10 MB",
        flat,
    )


def _in_a_process_of_its_own(
    table: Table, redis_url: str, share: float, walker: str
) -> dict[str, Any]:
    arguments = [table.url, redis_url, table.name, str(table.rows), str(share), walker]
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", *arguments],
        stdout=subprocess.PIPE,
        check=True,
    )
    answer: dict[str, Any] = json.loads(process.stdout)
    return answer


def _peak_mb() -> float:
    """Return the peak resident memory so far.

    Linux keeps ru_maxrss over exec: it would begin with the size of whoever started us.
    """
    if _STATUS.exists():
        lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


def _measure(
    url: str, redis_url: str, name: str, rows: str, share: str, walker: str
) -> dict[str, Any]:
    table = Table(name, url, int(rows))
    before = _peak_mb()
    with windows_of(_WINDOW_ROWS):
        result = run(table, redis_url, table.keep_for(float(share)), walker)
    peak = _peak_mb()
    return {
        "rows": result.total,
        "windows": result.batches,
        "peak_mb": peak,
        "grown_mb": peak - before,
    }


if __name__ == "__main__":
    print(json.dumps(_measure(*sys.argv[1:])))
