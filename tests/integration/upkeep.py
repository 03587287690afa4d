"""How a test says what maintenance may do, and runs it."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from housekeeping.engine.run import Request, Surroundings
from housekeeping.operations.maintenance import maintain
from housekeeping.policies.maintenance import (
    AnalyzeLimits,
    MaintenancePolicy,
    ReindexLimits,
    VacuumLimits,
    When,
)
from housekeeping.policies.purge import TableName
from housekeeping.policies.result import RunResult
from tests.conditions import wait_until
from tests.integration.database import Database

EAGER_VACUUM = VacuumLimits(dead_rows=100, dead_share=0.01, cost_limit=10_000)
EAGER_ANALYZE = AnalyzeLimits(changed_rows=100, changed_share=0.01)
EAGER_REINDEX = ReindexLimits(min_size=64 * 1024)
OURS = "application_name LIKE 'hk:database.maintain%%'"
REINDEXING = (
    f"SELECT count(*) FROM pg_stat_activity WHERE {OURS} AND query LIKE '%%upkeep.reindex%%'"
    " AND state = 'active' AND wait_event_type = 'Lock'"
)
INVALID = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid ORDER BY 1"


def policy_on(database: Database, *tables: str, **given: Any) -> MaintenancePolicy:
    """Return a policy that does what little need there is on `tables`, and rebuilds nothing."""
    plain: dict[str, Any] = {
        "operation": "database.maintain",
        "name": "plain",
        "database_url": database.url,
        "tables": tuple(TableName(name) for name in tables),
        "reindex": When.NEVER,
        "vacuum_limits": EAGER_VACUUM,
        "analyze_limits": EAGER_ANALYZE,
        "reindex_limits": EAGER_REINDEX,
        "patience": timedelta(seconds=1),
    }
    return MaintenancePolicy(**{**plain, **given})


def run(policy: MaintenancePolicy, around: Surroundings, **asked: Any) -> RunResult:
    """Run maintenance in this thread."""
    return maintain(policy, Request(run_by="tester@here", **asked), around)


@contextmanager
def running(
    policy: MaintenancePolicy, around: Surroundings, **asked: Any
) -> Iterator[Future[RunResult]]:
    """Run maintenance in another thread; the block ends when it has."""
    with ThreadPoolExecutor(1) as threads:
        yield threads.submit(run, policy, around, **asked)


def entry(result: RunResult, table: str) -> Mapping[str, Any]:
    """Return what a result tells of one table."""
    return next(each for each in result.tables if each["table"] == table)


def done(result: RunResult, table: str) -> list[tuple[str, str]]:
    """Return what was done to one table, and how it ended."""
    return [(each["work"], each["outcome"]) for each in entry(result, table)["actions"]]


def wait_until_reindexing_waits(database: Database) -> None:
    """Return once our REINDEX has built its copy and waits for somebody."""
    wait_until(lambda: database.one(REINDEXING), 20, lambda: "no REINDEX of ours waits")


def wait_for(predicate: Callable[[], object]) -> None:
    wait_until(predicate, 20)
