"""Real servers for integration tests: each installed PostgreSQL once a session, and one Valkey."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis import Redis

from embedded.installations import PostgresInstallation
from embedded.postgresql import PostgresServer, installations
from embedded.valkey import ValkeyServer
from housekeeping.engine.run import Surroundings
from housekeeping.stores.redis.connection import connect
from tests.integration.database import Database
from tests.integration.database_pool import EMPTY, DatabasePool

SCHEMAS = Path(__file__).parents[2] / "demo" / "schemas"
# Milvaion 2 is the newest schema without the columns that came with 3.
_MILVAION_2 = """
ALTER TABLE "ScheduledJobs" DROP COLUMN "CompletedAt";
ALTER TABLE "JobOccurrences" DROP COLUMN "JobDisplayName";
ALTER TABLE "WorkflowRuns" DROP COLUMN "StepJobData";
ALTER TABLE "MetricReports" DROP COLUMN "DataSizeBytes", DROP COLUMN "Period";
"""
# Installations upgraded from an older Milvaion never ran the script that makes these.
_FOREIGN_KEYS_ONLY = """
DO $$ DECLARE name text; BEGIN
  FOR name IN SELECT indexname FROM pg_indexes WHERE schemaname = 'public'
    AND indexname LIKE 'IX%' AND indexname NOT LIKE '%OccurrenceId'
  LOOP EXECUTE format('DROP INDEX %I', name); END LOOP;
END $$
"""

DatabaseFactory = Callable[[str], Database]


@pytest.fixture(scope="session", params=installations(), ids=lambda each: each.name)
def postgres(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A server of each installed PostgreSQL; every test that uses it runs on all of them."""
    installation: PostgresInstallation = request.param
    # Nobody vacuums a test's table before it looks.
    settings = {"max_connections": 60, "autovacuum_naptime": "1d"}
    with PostgresServer(installation, settings) as server:
        yield server


@pytest.fixture(scope="session")
def databases(postgres: PostgresServer) -> DatabasePool:
    return DatabasePool(postgres)


@pytest.fixture
def new_database(databases: DatabasePool) -> Iterator[DatabaseFactory]:
    """Hands out a database that holds a schema's tables, for this test."""
    with ExitStack() as at_end:
        yield lambda schema: at_end.enter_context(databases.holding(schema))


@pytest.fixture
def database(new_database: DatabaseFactory) -> Database:
    """An empty database."""
    return new_database(EMPTY)


@pytest.fixture
def events(new_database: DatabaseFactory) -> Database:
    """A database with an empty table `events`, indexed on its age."""
    return new_database(
        "CREATE TABLE events (id bigint PRIMARY KEY, created_at timestamptz, status text, note text);"
        "CREATE INDEX events_created_at ON events (created_at)"
    )


@pytest.fixture(scope="session")
def milvaion_schemas() -> dict[str, str]:
    """Milvaion's tables by generation; `bare`: the newest without the script's indexes."""
    oldest = (SCHEMAS / "milvaion_2026_01.sql").read_text()
    newest = (SCHEMAS / "milvaion_2026_08.sql").read_text()
    return {
        "V1": oldest,
        "V2": newest + _MILVAION_2,
        "V3": newest,
        "V1 bare": oldest + _FOREIGN_KEYS_ONLY,
        "V3 bare": newest + _FOREIGN_KEYS_ONLY,
    }


@pytest.fixture(scope="session")
def valkey() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.fixture
def redis(valkey: ValkeyServer) -> Iterator[Redis]:
    """A client of an empty Redis."""
    client = connect(valkey.url())
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def around(redis: Redis) -> Surroundings:
    """What a run needs from outside."""
    return Surroundings(redis)
