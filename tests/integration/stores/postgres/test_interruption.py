"""Interrupting a statement, on a real server. PROBE_STOCK=1 shows psycopg2 as it comes."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from io import StringIO
from threading import Thread
from types import FrameType
from typing import Self

import psycopg2
import pytest
from psycopg2 import extensions
from sqlalchemy import create_engine, make_url, text

from embedded.postgresql import PostgresServer
from housekeeping.stores.postgres.interruption import install
from tests.conditions import wait_until

_LIMIT_S = 0.3
_AT_ONCE_S = 1.5  # the limit, half a second of a signal's bad luck, and a slow machine
_LONG_STATEMENT = "SELECT pg_sleep(8) /* interrupted */"


class LimitReached(Exception):
    """What a soft time limit raises in the middle of a task."""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    if not os.environ.get("PROBE_STOCK"):
        install()
    yield
    extensions.set_wait_callback(None)


@contextmanager
def soft_time_limit() -> Iterator[None]:
    """Raise LimitReached from a signal handler, as Celery does in a pool's child."""

    def reached(number: int, frame: FrameType | None) -> None:
        raise LimitReached

    before = signal.signal(signal.SIGALRM, reached)
    signal.setitimer(signal.ITIMER_REAL, _LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Gateway:
    """Forwards one connection to a server, and then looks like a host that is gone."""

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        address = self._listener.getsockname()
        self.url = f"postgresql://postgres@127.0.0.1:{address[1]}/postgres"
        self._address = address
        self._port = port
        self._sockets = [self._listener]
        self._thread = Thread(target=self._forward)

    def accept_nobody(self) -> None:
        """Fill the queue of new connections, so that the kernel answers no further one."""
        for _ in range(3):
            one_more = socket.socket()
            one_more.setblocking(False)
            one_more.connect_ex(self._address)
            self._sockets.append(one_more)

    def _forward(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(("127.0.0.1", self._port))
        self._sockets += [client, server]
        ends = {client: server, server: client}
        while True:
            readable, _, _ = select.select(list(ends), [], [])
            for end in readable:
                if not (data := end.recv(65536)):
                    return
                ends[end].sendall(data)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()  # our client has closed its connection
        for each in self._sockets:
            each.close()


def nothing_runs(server: PostgresServer) -> bool:
    """Whether the server has ended the interrupted statement."""
    with closing(psycopg2.connect(server.url())) as observer, observer.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE state = 'active' AND query LIKE '%/* interrupted */'"
            " AND pid <> pg_backend_pid()"
        )
        (running,) = cursor.fetchone() or (None,)
        return bool(running == 0)


def test_a_soft_time_limit_ends_a_statement_at_once_here_and_on_the_server(
    server: PostgresServer,
) -> None:
    with closing(psycopg2.connect(server.url())) as connection, connection.cursor() as cursor:
        begun = time.monotonic()
        with pytest.raises(LimitReached), soft_time_limit():
            cursor.execute(_LONG_STATEMENT)

        assert time.monotonic() - begun < _AT_ONCE_S
        wait_until(lambda: nothing_runs(server), 2)
        assert connection.closed


def test_ctrl_c_ends_a_statement_at_once_here_and_on_the_server(server: PostgresServer) -> None:
    prologue = "" if os.environ.get("PROBE_STOCK") else "interruption.install()"
    script = (
        "import psycopg2; from housekeeping.stores.postgres import interruption\n"
        f"{prologue}\n"
        f"psycopg2.connect({server.url()!r}).cursor().execute({_LONG_STATEMENT!r})\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE) as process:
        try:
            wait_until(lambda: not nothing_runs(server), 10)
            interrupted = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=20)
        finally:
            process.kill()

    assert b"KeyboardInterrupt" in errors
    assert time.monotonic() - interrupted < _AT_ONCE_S
    wait_until(lambda: nothing_runs(server), 2)


def test_a_statement_that_waits_for_a_lock_is_interrupted_and_gives_up_its_place(
    server: PostgresServer,
) -> None:
    with (
        closing(psycopg2.connect(server.url())) as user,
        closing(psycopg2.connect(server.url())) as cleaner,
        user.cursor() as holds,
        cleaner.cursor() as waits,
    ):
        waits.execute("SET lock_timeout = '8s'")
        cleaner.commit()
        holds.execute("SELECT pg_advisory_xact_lock(7)")

        begun = time.monotonic()
        with pytest.raises(LimitReached), soft_time_limit():
            waits.execute("SELECT pg_advisory_xact_lock(7) /* interrupted */")

        assert time.monotonic() - begun < _AT_ONCE_S
        wait_until(lambda: nothing_runs(server), 2)


def test_a_pool_replaces_the_connection_an_interruption_has_closed(
    server: PostgresServer,
) -> None:
    url = make_url(server.url()).set(drivername="postgresql+psycopg2")
    engine = create_engine(url, pool_size=1, max_overflow=0)
    try:
        with engine.connect() as connection, pytest.raises(LimitReached), soft_time_limit():
            connection.execute(text(_LONG_STATEMENT))
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT 1")) == 1
    finally:
        engine.dispose()


def test_a_network_that_is_gone_keeps_nobody_from_leaving(server: PostgresServer) -> None:
    with (
        Gateway(server.port) as gateway,
        closing(psycopg2.connect(gateway.url)) as connection,
        connection.cursor() as cursor,
    ):
        gateway.accept_nobody()
        begun = time.monotonic()
        with pytest.raises(LimitReached), soft_time_limit():
            cursor.execute(_LONG_STATEMENT)
        took = time.monotonic() - begun

    assert took < _AT_ONCE_S + 2  # a cancel's connection attempt would take two minutes


def test_an_error_of_the_statement_itself_leaves_the_connection_usable(
    server: PostgresServer,
) -> None:
    with closing(psycopg2.connect(server.url())) as connection, connection.cursor() as cursor:
        with pytest.raises(psycopg2.errors.DivisionByZero):
            cursor.execute("SELECT 1 / 0")
        connection.rollback()
        cursor.execute("SELECT 2")
        assert cursor.fetchone() == (2,)


@pytest.mark.skipif(bool(os.environ.get("PROBE_STOCK")), reason="stock psycopg2 can COPY")
def test_copy_is_refused_rather_than_left_hanging(server: PostgresServer) -> None:
    with (
        closing(psycopg2.connect(server.url())) as connection,
        connection.cursor() as cursor,
        pytest.raises(psycopg2.ProgrammingError, match="asynchronous"),
    ):
        cursor.copy_expert("COPY (SELECT 1) TO STDOUT", StringIO())
