"""Several worker processes on one run, and the account they have to give."""

from typing import Any

from tests.conditions import wait_until
from tests.faults.runs.events import assert_finished_exactly_once
from tests.faults.runs.installation import Installation, SuiteProcess

SHARED: dict[str, object] = {
    "tables__events__workers": 3,
    "tables__events__split_above_rows": 1000,
    "max_workers_per_database": 3,
}
OVERLAPS = """
SELECT a.number, b.number FROM housekeeping.run_window a JOIN housekeeping.run_window b
    ON a.run_id = b.run_id AND a.number < b.number
WHERE (a.lower::point)[0] < (b.upper::point)[0] AND (b.lower::point)[0] < (a.upper::point)[0]
"""


def claimants(installation: Installation) -> int:
    """How many workers have committed a window in a range they hold."""
    if not installation.windows():
        return 0
    (found,) = installation.rows(
        "SELECT count(DISTINCT claimed_by) FROM housekeeping.shard WHERE rows > 0"
    )
    return int(found["count"])


def helpers(workers: list[SuiteProcess]) -> list[SuiteProcess]:
    return [worker for worker in workers if worker.said("housekeeping.shards.work")]


def owner(workers: list[SuiteProcess]) -> SuiteProcess:
    (found,) = [w for w in workers if w.running and w.said("Task tasks.tables.purge")]
    return found


def begin(installation: Installation, count: int = 3) -> tuple[list[SuiteProcess], str]:
    """Start workers and a run that all of them share; return them and the task's id."""
    workers = [installation.worker() for _ in range(count)]
    task_id = installation.send()
    wait_until(lambda: claimants(installation) == count, 20, otherwise=installation.told)
    return workers, task_id


def assert_shared_exactly_once(
    installation: Installation, task_id: str, **expected: Any
) -> dict[str, Any]:
    result = assert_finished_exactly_once(installation, task_id, **expected)
    assert installation.rows(OVERLAPS) == [], installation.told()
    assert not installation.rows("SELECT number FROM housekeeping.shard WHERE done_at IS NULL")
    return result
