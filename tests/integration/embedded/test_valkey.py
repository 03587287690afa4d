from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import redis

from embedded import child
from embedded.ports import free_port
from embedded.valkey import ServerDidNotStart, ValkeyServer, binaries

EVERY_BINARY = pytest.mark.parametrize("binary", binaries().values(), ids=binaries().keys())


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer(append_only=True) as started:
        yield started


def client(server: ValkeyServer, db: int = 0) -> "redis.Redis":
    return redis.Redis.from_url(server.url(db), decode_responses=True)


@EVERY_BINARY
def test_a_server_keeps_its_databases_apart_and_evicts_nothing(binary: Path) -> None:
    with ValkeyServer(binary) as server, client(server) as zero, client(server, 1) as one:
        zero.set("key", "in 0")

        assert one.get("key") is None
        assert zero.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


@EVERY_BINARY
def test_an_append_only_server_keeps_what_it_answered_for_when_killed(binary: Path) -> None:
    with ValkeyServer(binary, append_only=True) as server, client(server) as connection:
        url, first = server.url(), server.pid
        connection.set("key", "value")

        server.kill()
        assert not psutil.pid_exists(first)
        server.start()

        assert server.url() == url
        assert server.pid != first
        assert connection.get("key") == "value"


def test_a_restart_keeps_the_data(server: ValkeyServer) -> None:
    with client(server) as connection:
        connection.set("key", "value")
        assert server.restart() is server
        assert connection.get("key") == "value"


def test_a_server_that_is_not_append_only_comes_back_empty() -> None:
    with ValkeyServer() as server, client(server) as connection:
        connection.set("key", "value")
        server.restart()
        assert connection.get("key") is None


def test_a_stopped_server_has_no_process_and_starts_again(server: ValkeyServer) -> None:
    server.stop()
    with pytest.raises(RuntimeError, match="is not running"):
        _ = server.pid
    server.stop()  # a second time is no error

    with client(server.start()) as connection:
        assert connection.ping()


def test_the_folder_is_gone_after_the_with_block() -> None:
    with ValkeyServer(append_only=True) as server, client(server) as connection:
        folder = Path(connection.config_get("dir")["dir"])
        assert folder.is_dir()

    assert not folder.exists()


def test_another_server_on_the_port_is_not_taken_for_ours(
    server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = iter([server.port, free_port()])
    monkeypatch.setattr(child, "free_port", lambda: next(ports))
    with ValkeyServer() as second, client(second) as connection:
        assert second.port != server.port
        assert connection.info("server")["process_id"] == second.pid


def test_a_server_that_does_not_start_says_which_and_why(
    server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "free_port", lambda: server.port)
    with (
        closing(ValkeyServer()) as second,
        pytest.raises(
            ServerDidNotStart, match=r"valkey-server .* ended with status 1(?s:.*)already in use"
        ),
    ):
        second.start()
