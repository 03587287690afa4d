"""An embedded RabbitMQ keeps to itself, comes back with what it confirmed, and leaves nothing."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import amqp
import psutil
import pytest

from embedded.rabbitmq import RabbitServer
from tests import rabbit
from tests.conditions import wait_until

pytestmark = rabbit.needed


@pytest.fixture(scope="module")
def server() -> Iterator[RabbitServer]:
    with RabbitServer() as server:
        yield server


def descendants(server: RabbitServer) -> list[psutil.Process]:
    node = psutil.Process(server.pid)
    return [node, *node.children(recursive=True)]


def listening() -> dict[int, set[str]]:
    """Return the addresses each process listens on."""
    found: dict[int, set[str]] = {}
    for each in psutil.net_connections("tcp"):
        if each.status == psutil.CONN_LISTEN and each.pid is not None:
            found.setdefault(each.pid, set()).add(each.laddr.ip)
    return found


def test_it_listens_on_loopback_only(server: RabbitServer) -> None:
    assert listening()[server.pid] <= {"127.0.0.1", "::1"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a user to change from")
def test_it_does_not_run_as_root(server: RabbitServer) -> None:
    assert "root" not in {process.username() for process in descendants(server)}


def test_all_its_files_are_in_its_own_folder(server: RabbitServer) -> None:
    opened = {Path(each.path) for each in psutil.Process(server.pid).open_files()}

    assert opened
    assert all(path.is_relative_to(server.folder) for path in opened), opened
    assert (server.folder / "home" / ".erlang.cookie").is_file()


def test_two_servers_know_nothing_of_each_other(server: RabbitServer) -> None:
    with RabbitServer() as other, amqp.Connection(f"127.0.0.1:{server.port}") as connection:
        connection.channel().queue_declare("mine", durable=True, auto_delete=False)
        assert other.port != server.port
        with (
            amqp.Connection(f"127.0.0.1:{other.port}") as elsewhere,
            pytest.raises(amqp.NotFound),
        ):
            elsewhere.channel().queue_declare("mine", passive=True)


def test_a_confirmed_message_survives_a_kill(server: RabbitServer) -> None:
    port = server.port
    publisher = amqp.Connection(f"127.0.0.1:{port}", confirm_publish=True)
    publisher.connect()
    channel = publisher.channel()
    channel.queue_declare("kept", durable=True, auto_delete=False)
    channel.basic_publish(amqp.Message("here", delivery_mode=2), routing_key="kept")

    server.kill()
    publisher.collect()

    server.start()
    assert server.port == port
    with amqp.Connection(f"127.0.0.1:{port}") as connection:
        message = connection.channel().basic_get("kept", no_ack=True)
    assert message.body == "here"


def test_closing_it_leaves_no_process_and_no_folder() -> None:
    server = RabbitServer().start()
    folder, port, processes = server.folder, server.port, descendants(server)

    server.close()

    wait_until(lambda: not any(_lives(process) for process in processes), 5)
    assert not folder.exists()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_it_ends_with_a_process_of_ours_that_is_killed() -> None:
    script = (
        "from embedded.rabbitmq import RabbitServer\n"
        "server = RabbitServer().start()\n"
        "print(server.pid, server.folder, flush=True)\n"
        "input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    ) as owner:
        assert owner.stdout is not None
        pid, folder = owner.stdout.readline().split()
        node = psutil.Process(int(pid))
        processes = [node, *node.children(recursive=True)]

        owner.send_signal(signal.SIGKILL)

    wait_until(lambda: not any(_lives(process) for process in processes), 5)
    wait_until(lambda: not Path(folder).exists(), 5)


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
