"""Real servers for integration tests: each installed PostgreSQL once a session, and one Valkey."""

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import psycopg2
import pytest
from redis import Redis

from embedded.installations import PostgresInstallation
from embedded.postgresql import PostgresServer, installations
from embedded.valkey import ValkeyServer
from housekeeping.engine.run import Surroundings
from housekeeping.stores.redis.connection import connect
from tests.integration.database import Database

SCHEMAS = Path(__file__).parents[2] / "demo" / "schemas"
_EMPTY = ""
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
    with PostgresServer(installation, {"max_connections": 60}) as server:
        yield server


@pytest.fixture(scope="session")
def templates(postgres: PostgresServer) -> dict[str, str]:
    """Names of template databases by the schema they hold; filled by `new_database`."""
    return {}


@pytest.fixture
def new_database(postgres: PostgresServer, templates: dict[str, str]) -> Iterator[DatabaseFactory]:
    """Makes a database that holds a schema's tables, as a copy of a template: some 25 ms."""
    made: list[str] = []
    numbers = count()

    def make(schema: str) -> Database:
        if schema not in templates:
            templates[schema] = f"template_{len(templates)}"
            with_tables(postgres.create_database(templates[schema]), schema)
        name = f"test_{next(numbers)}"
        made.append(name)
        url = postgres.create_database(name, templates[schema])
        return Database(url, postgres.installation.version)

    yield make
    for name in made:
        postgres.drop_database(name)


def with_tables(url: str, schema: str) -> None:
    """Run a schema's statements on a new database."""
    if schema == _EMPTY:
        return
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(schema)


@pytest.fixture
def database(new_database: DatabaseFactory) -> Database:
    """An empty database."""
    return new_database(_EMPTY)


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
