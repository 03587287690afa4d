"""These tests run on every server there is: the embedded Valkey, and Debian's Redis where installed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded.valkey import ValkeyServer, binaries


@pytest.fixture(scope="package", params=binaries().values(), ids=binaries().keys())
def valkey(request: pytest.FixtureRequest) -> Iterator[ValkeyServer]:
    binary: Path = request.param
    with ValkeyServer(binary) as server:
        yield server
