import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import psycopg2
import pytest

from embedded import child
from embedded.installations import PostgresInstallation, installations
from embedded.ports import free_port
from embedded.postgresql import PostgresServer, ServerDidNotStart
from tests.conditions import wait_until

REPOSITORY = Path(__file__).parents[3]
EVERY_INSTALLATION = pytest.mark.parametrize(
    "installation", installations(), ids=lambda each: each.name
)
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

START_AND_BE_KILLED = """
import os, signal
from embedded.postgresql import PostgresServer
server = PostgresServer().start()
print(server.pid, server.socket_directory, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as started:
        yield started


@pytest.fixture
def private_installation(tmp_path: Path) -> PostgresInstallation:
    """A copy of the wheel's files under a folder that only root can enter."""
    original = installations()[0]
    package = original.binaries.parents[1]
    for source in (
        package / original.binaries.parent.name,
        package.with_name(package.name + ".libs"),
    ):
        shutil.copytree(source, tmp_path / "private" / source.relative_to(package.parent))
    (tmp_path / "private").chmod(0o700)
    binaries = tmp_path / "private" / original.binaries.relative_to(package.parent)
    return PostgresInstallation("private", original.version, binaries)


def ask(url: str, query: str) -> object:
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(query)
            row = cursor.fetchone() if cursor.description else None
    return None if row is None else row[0]


def is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_the_wheel_is_preferred_to_the_systems_postgresql() -> None:
    assert installations()[0].name.startswith("embedded-")


@EVERY_INSTALLATION
def test_a_server_answers_on_tcp_and_on_its_unix_socket(installation: PostgresInstallation) -> None:
    with PostgresServer(installation) as server:
        version = ask(server.url(), "SELECT current_setting('server_version_num')::int / 10000")
        local = f"postgresql://postgres@/postgres?host={server.socket_directory}&port={server.port}"

        assert version == installation.version
        assert ask(local, "SELECT inet_server_addr()") is None


@EVERY_INSTALLATION
def test_what_was_committed_survives_a_kill(installation: PostgresInstallation) -> None:
    with PostgresServer(installation) as server:
        url, first = server.create_database("kept"), server.pid
        ask(url, "CREATE TABLE rows AS SELECT generate_series(1, 1000)")
        with closing(psycopg2.connect(url)) as busy, busy.cursor() as cursor:
            cursor.execute("INSERT INTO rows VALUES (0)")
            server.kill()
            assert not is_running(first)
        server.start()

        assert server.url("kept") == url
        assert ask(url, "SELECT count(*) FROM rows") == 1000


@EVERY_INSTALLATION
def test_nothing_is_left_after_stop(installation: PostgresInstallation) -> None:
    server = PostgresServer(installation).start()
    pid, folder = server.pid, server.socket_directory

    server.stop()
    server.stop()  # a second time is no error

    assert not is_running(pid)
    assert not folder.exists()


def test_a_database_is_copied_from_a_template_and_dropped_with_its_sessions(
    server: PostgresServer,
) -> None:
    ask(server.create_database("template of shop"), "CREATE TABLE orders AS SELECT 42 AS id")
    copy = server.create_database("shop", template="template of shop")
    with closing(psycopg2.connect(copy)) as session, session.cursor() as cursor:
        cursor.execute("SELECT id FROM orders")
        assert cursor.fetchone() == (42,)

        server.drop_database("shop")

    with pytest.raises(psycopg2.OperationalError, match="does not exist"):
        psycopg2.connect(copy)
    server.drop_database("shop")  # dropping what is not there is no error


def test_a_callers_settings_go_over_ours() -> None:
    name = "it's ours"
    with PostgresServer(
        settings={"fsync": "on", "max_connections": 7, "cluster_name": name}
    ) as own:
        assert ask(own.url(), "SHOW fsync") == "on"
        assert ask(own.url(), "SHOW max_connections") == "7"
        assert ask(own.url(), "SHOW cluster_name") == name


def test_a_server_that_does_not_start_shows_its_log_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # root's server has to enter it as another user
        monkeypatch.setattr(tempfile, "tempdir", folder)

        with pytest.raises(ServerDidNotStart, match='invalid value for parameter "max_connections'):
            PostgresServer(settings={"max_connections": "many"}).start()

        assert not list(Path(folder).iterdir())


def test_a_temporary_folder_whose_path_is_too_long_for_a_socket_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    long = tmp_path / ("long" * 25)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))

    with PostgresServer() as server:
        assert not server.socket_directory.is_relative_to(long)


def test_a_port_that_somebody_took_meanwhile_is_given_up_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as other:
        taken = other.getsockname()[1]
        ports = iter([taken, free_port()])
        monkeypatch.setattr(child, "free_port", lambda: next(ports))
        with PostgresServer() as server:
            assert server.port != taken
            assert ask(server.url(), "SELECT 1") == 1


def test_server_and_folder_go_when_our_process_is_killed() -> None:
    script = [sys.executable, "-c", START_AND_BE_KILLED]
    ended = subprocess.run(script, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    pid, folder = ended.stdout.split()

    wait_until(lambda: not is_running(int(pid)), within_seconds=20)
    wait_until(lambda: not Path(folder).exists(), within_seconds=20)


@AS_ROOT
def test_root_runs_it_as_a_user_without_privileges(server: PostgresServer) -> None:
    process = psutil.Process(server.pid)

    assert process.username() in {"postgres", "nobody"}
    assert 0 not in process.uids()
    assert 0 not in process.gids()


@AS_ROOT
def test_binaries_in_a_private_folder_run_and_the_folder_stays_private(
    private_installation: PostgresInstallation,
) -> None:
    folders = private_installation.binaries.parents[:6]
    before = [(folder, stat.filemode(folder.stat().st_mode)) for folder in folders]

    with PostgresServer(private_installation) as server:
        assert ask(server.url(), "SELECT 1") == 1
        program = Path(psutil.Process(server.pid).exe())
        assert program.is_relative_to(server.socket_directory)

    assert [(folder, stat.filemode(folder.stat().st_mode)) for folder in folders] == before
