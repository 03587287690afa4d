"""How a test says what maintenance may do, and runs it."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
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

BLOATED = """
    CREATE TABLE jobs (id int PRIMARY KEY, token text, state int) WITH (autovacuum_enabled = false);
    CREATE TABLE other (id int);
    INSERT INTO jobs SELECT i, md5(i::text), i % 5 FROM generate_series(1, 20000) i;
    CREATE INDEX jobs_token ON jobs (token);
    DELETE FROM jobs WHERE id % 4 <> 0;
"""
BY_NEED = {"vacuum": When.NEVER, "analyze": When.NEVER, "reindex": When.BY_NEED}
# Only the index on token: the primary key is smaller.
ONE = {**BY_NEED, "reindex_limits": replace(EAGER_REINDEX, min_size=1_200_000)}
SIZE = "SELECT pg_relation_size('jobs_token')"


def bloat(database: Database) -> None:
    """Fill a table and delete three rows of four, strewn about: its indexes are mostly air."""
    database.run(BLOATED)
    database.run("VACUUM (INDEX_CLEANUP ON, ANALYZE) jobs")
    if database.version < 18:
        database.run("CREATE EXTENSION pgstattuple")


@contextmanager
def a_snapshot(database: Database) -> Iterator[Any]:
    """A user's open snapshot, which has not touched our table: REINDEX CONCURRENTLY waits for it."""
    with database.session() as user, user.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SET LOCAL application_name = 'a long report'")
        cursor.execute("SELECT 1")
        yield user


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
