"""A table large enough to be shared, and workers who come when they are asked."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from housekeeping.engine.run import Surroundings
from housekeeping.operations.shared_runs.sharing import Shared, share
from housekeeping.policies.policy import Policy
from housekeeping.policies.purge import PurgePolicy
from housekeeping.policies.result import RunResult, StopReason
from tests.conditions import wait_until
from tests.integration.database import Database
from tests.integration.runs import (
    SMALL_WINDOWS,
    ledger_rows,
    run,
)

EXPIRED, KEPT = 40_000, 4_000
SHARED = replace(SMALL_WINDOWS, workers=2, split_above_rows=1_000, lease_ttl=timedelta(seconds=3))
OVERLAPS = """
SELECT a.number, b.number FROM housekeeping.run_window a JOIN housekeeping.run_window b
    ON a.run_id = b.run_id AND a.number < b.number
WHERE a.error IS NULL AND b.error IS NULL
  AND (a.lower::point)[0] < (b.upper::point)[0] AND (b.lower::point)[0] < (a.upper::point)[0]
"""


def fill(events: Database) -> None:
    events.run(
        "INSERT INTO events SELECT i, now() - CASE WHEN i %% 11 = 0 THEN interval '1 day'"
        " ELSE interval '60 days' END, 'done', repeat('x', 40) FROM generate_series(1, %s) i",
        EXPIRED + KEPT,
    )
    events.run("DROP INDEX events_created_at")
    events.run("VACUUM ANALYZE events")


class Crew:
    """Workers who come when they are asked, each on connections of his own.

    The owner begins when they have: else, on a busy machine, he would be done before.
    """

    def __init__(self, around: Surroundings, threads: ThreadPoolExecutor) -> None:
        self.asked: list[tuple[UUID, int]] = []
        self.shares: list[Future[Shared]] = []
        self._around = around
        self._threads = threads

    def __call__(self, policy: Policy, run_id: UUID, count: int) -> None:
        assert isinstance(policy, PurgePolicy)
        self.asked.append((run_id, count))
        for number in range(count):
            by = f"helper{number}@there"
            self.shares.append(self._threads.submit(share, policy, run_id, by, self._around))
        ledger = Database(policy.database_url, 0)

        def here() -> bool:
            joined = ledger.one("SELECT sum(cardinality(workers)) FROM housekeeping.split") or 0
            return joined + sum(each.done() for each in self.shares) >= len(self.shares)

        wait_until(here, 20)


@contextmanager
def crew(around: Surroundings) -> Iterator[Crew]:
    with ThreadPoolExecutor(8) as threads:
        yield Crew(around, threads)


def run_shared(policy: PurgePolicy, around: Surroundings, crew: Crew, **asked: Any) -> RunResult:
    return run(policy, replace(around, recruit=crew), **asked)


def assert_done_exactly_once(database: Database, result: RunResult) -> None:
    assert (result.stop_reason, result.error) == (StopReason.EXHAUSTED, None)
    assert result.success
    assert database.count("events") == KEPT
    assert result.total == ledger_rows(database) == EXPIRED
    assert database.rows(OVERLAPS) == []
    assert database.one("SELECT count(*) FROM housekeeping.shard WHERE done_at IS NULL") == 0


def nobody_comes(policy: Policy, run_id: UUID, count: int) -> None:
    pass
