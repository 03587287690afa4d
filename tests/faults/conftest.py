"""A broker of its own for every fault test; its processes end with the test, passed or not."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded.valkey import ValkeyServer
from tests.faults.stack import Stack
from tests.rabbit import rabbit, rabbit_server

__all__ = ["rabbit", "rabbit_server"]  # fixtures


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
