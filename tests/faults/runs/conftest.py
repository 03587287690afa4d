"""Our own suite on servers of its own, with a run that takes long enough to be disturbed."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import psycopg2
import pytest

from embedded.postgresql import PostgresServer
from embedded.valkey import ValkeyServer
from tests.faults.runs import events
from tests.faults.runs.installation import Installation

Install = Callable[..., Installation]

# Short, so that what a dead worker held is free again within seconds.
TIMES = {"visibility_timeout": "4s", "lease_ttl": "2s"}


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL for all these tests; some kill it and start it again."""
    with PostgresServer() as server:
        for name, statements in {
            "resting": (events.FILL, events.taking_time(every=100)),
            "indexed": (events.FILL, events.INDEX, events.taking_time(every=100)),
            "slow": (events.FILL, events.taking_time(every=25)),
        }.items():
            _execute(server.create_database(name), *statements, "ANALYZE")
        yield server


@pytest.fixture
def valkey() -> Iterator[ValkeyServer]:
    """A Valkey that keeps its data over a kill."""
    with ValkeyServer(append_only=True) as server:
        yield server


@pytest.fixture
def forgetful_valkey() -> Iterator[ValkeyServer]:
    """A Valkey that comes back empty."""
    with ValkeyServer(append_only=False) as server:
        yield server


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[Callable[[str], str]]:
    """Makes this test's database as a copy of a filled one."""
    postgres.start()  # a test before may have left it killed
    with ExitStack() as at_end:

        def make(template: str) -> str:
            at_end.callback(postgres.drop_database, "own")
            return postgres.create_database("own", template)

        yield make


@pytest.fixture
def install(database: Callable[[str], str], tmp_path: Path) -> Iterator[Install]:
    """Makes an installation on a copy of `template`; its processes end with the test."""
    with ExitStack() as at_end:

        def make(template: str, valkey: ValkeyServer, **settings: object) -> Installation:
            policy = events.WORKING if template == "slow" else events.RESTING
            wanted = {**TIMES, **policy, **settings}
            installation = Installation(database(template), valkey, tmp_path, **wanted)
            at_end.callback(installation.end)
            return installation

        yield make


def _execute(url: str, *statements: str) -> None:
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
