"""A large purge over three workers, one of them killed: finished once, totals exact.

In the suite with 200,000 rows; the full size is asked for, as it takes minutes and 600 MB:

    SHARED_ROWS=10000000 python -m pytest tests/faults/runs/test_ten_million_rows.py -s
"""

import os
import time

import pytest

from embedded.postgresql import PostgresServer
from embedded.valkey import ValkeyServer
from tests.faults.runs.conftest import Install
from tests.faults.runs.sharing import OVERLAPS, SHARED, begin, helpers

ROWS = int(os.environ.get("SHARED_ROWS", "200000"))
_KEPT_EVERY = 10
EXPIRED = ROWS - ROWS // _KEPT_EVERY
# Long enough to be disturbed, also where there are few rows.
_DUTY = 1.0 if ROWS > 5_000_000 else 0.05
FILL = f"""
CREATE TABLE events (id bigint, happened_at timestamptz NOT NULL);
INSERT INTO events
SELECT i, now() - CASE WHEN i % {_KEPT_EVERY} = 0 THEN interval '1 day' ELSE interval '60 days' END
FROM generate_series(1, {ROWS}) i;
"""


@pytest.mark.timeout(600)
def test_a_purge_shared_by_three_workers_one_of_them_killed_ends_once_with_exact_totals(
    install: Install, postgres: PostgresServer, valkey: ValkeyServer
) -> None:
    installation = install("resting", valkey, **SHARED, tables__events__duty=_DUTY)
    installation.rows("DROP TABLE events")
    installation.rows(FILL)
    installation.rows("ANALYZE events")
    begun = time.monotonic()
    workers, task_id = begin(installation)
    done = sum(window["rows"] for window in installation.windows())
    helpers(workers)[0].kill()
    killed = time.monotonic()

    result = installation.outcome(task_id, within_seconds=300).result

    seconds = time.monotonic() - killed
    assert (result["stop_reason"], result["success"]) == ("exhausted", True), installation.told()
    assert 0 < done < EXPIRED
    assert result["total_deleted"] == EXPIRED
    assert sum(window["rows"] for window in installation.windows()) == EXPIRED
    assert installation.rows("SELECT count(*) AS left FROM events")[0]["left"] == ROWS - EXPIRED
    assert installation.rows(f"SELECT FROM events WHERE id % {_KEPT_EVERY} <> 0 LIMIT 1") == []
    assert installation.rows(OVERLAPS) == []
    taken = installation.rows("SELECT number FROM housekeeping.shard WHERE claim > 1")
    (run,) = installation.runs()
    lasted = (run["ended_at"] - run["started_at"]).total_seconds()  # of all its attempts
    print(  # noqa: T201 - the figures are what one runs the full size for
        f"{ROWS:,} rows: {result['total_deleted']:,} went in {lasted:.1f} s, "
        f"{result['batches']} windows, {result['workers']} workers; one killed after "
        f"{killed - begun:.1f} s and {done:,} rows, {len(taken)} range taken over, "
        f"ended {seconds:.1f} s later"
    )
