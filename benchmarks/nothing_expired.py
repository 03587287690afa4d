"""What a nightly run costs a large table when nothing is due.

Measured twice: by the server (`pg_stat_database.active_time`: statements and commits of all our
sessions, look-ups, plan and ledger included, without opening connections), and by the run itself
(its phases, which also hold the way to Redis and back).
"""

import time
from datetime import timedelta
from statistics import median

from benchmarks.contenders import run
from benchmarks.figures import Figure
from benchmarks.stage import Stage

ROWS = 10_000_000
MOST_MS = 100.0
_RUNS = 3
_KEEP_FOR = timedelta(days=30)
_PATIENCE_S = 10.0


def nothing_expired(stage: Stage) -> Figure:
    """Run on 10 M rows, all of them young, and sum the server's time up."""
    table = stage.quiet(ROWS)
    busy = []
    for _ in range(_RUNS):
        before = _active_ms(stage, table.database)
        result = run(table, stage.redis_url, _KEEP_FOR)
        busy.append(_active_ms(stage, table.database) - before)
        phases = result.phases.probe + result.phases.delete + result.phases.commit
        print(
            f"  {result.total} rows gone; server {busy[-1]:.1f} ms, phases {phases * 1000:.1f} ms, "
            f"whole run {result.seconds * 1000:.1f} ms",
            flush=True,
        )
    middle = median(busy)
    name = "10 M rows, nothing expired: time in the database"
    return Figure(name, f"{middle:.1f} ms", "< 100 ms", middle < MOST_MS)


def _active_ms(stage: Stage, database: str) -> float:
    """Return the database's time so far; sessions report theirs when they end."""
    patience = time.monotonic() + _PATIENCE_S
    with stage.administrator() as cursor:
        while time.monotonic() < patience:
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = %s", (database,))
            if not cursor.fetchone()[0]:
                break
            time.sleep(0.01)
        cursor.execute("SELECT active_time FROM pg_stat_database WHERE datname = %s", (database,))
        return float(cursor.fetchone()[0])
