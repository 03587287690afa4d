"""A broker of its own for every fault test; its processes end with the test, passed or not."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded.installations import PostgresInstallation
from embedded.postgresql import PostgresServer, installations
from embedded.valkey import ValkeyServer
from tests.faults.stack import Stack
from tests.rabbit import rabbit, rabbit_server

__all__ = ["rabbit", "rabbit_server"]  # fixtures


@pytest.fixture
def moments() -> random.Random:
    """Different moments each time; a failed test shows the seed."""
    seed = random.SystemRandom().randrange(1_000_000)
    print(f"moments = random.Random({seed})")  # noqa: T201 - pytest shows it for a failed test
    return random.Random(seed)


@pytest.fixture(params=installations(), ids=lambda each: each.name)
def own_postgres(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A server of this test's own, of each installed PostgreSQL."""
    installation: PostgresInstallation = request.param
    with PostgresServer(installation) as server:
        yield server


@pytest.fixture
def own_valkey() -> Iterator[ValkeyServer]:
    """A Valkey of this test's own."""
    with ValkeyServer() as server:
        yield server


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """A stack on a broker that keeps its data over a kill."""
    with ValkeyServer(append_only=True) as valkey:
        stack = Stack(valkey, tmp_path)
        try:
            yield stack
        finally:
            stack.end()


@pytest.fixture
def forgetful_stack(tmp_path: Path) -> Iterator[Stack]:
    """A stack on a broker that comes back empty."""
    with ValkeyServer(append_only=False) as valkey:
        stack = Stack(valkey, tmp_path)
        try:
            yield stack
        finally:
            stack.end()
