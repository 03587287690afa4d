"""A PostgreSQL server of our own: empty, on loopback, gone when we are.

    with PostgresServer() as server:
        url = server.create_database("shop")

Everybody on this machine can connect as its superuser, without a password: put nothing in it
that matters.
"""

import signal
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import psutil
import psycopg2
from psycopg2 import sql

from embedded.accounts import unprivileged
from embedded.child import ChildServer, EmbeddedServer, ServerDidNotStart
from embedded.installations import (
    PostgresInstallation,
    installations,
    preferred,
    reachable,
)
from embedded.workspace import Workspace

__all__ = ["PostgresInstallation", "PostgresServer", "ServerDidNotStart", "installations"]

_TEST_SETTINGS: dict[str, str | int] = {
    # Nobody will miss this data after a power cut. `synchronous_commit` stays on: without fsync
    # it costs nothing, and what was committed survives `kill()`, which fault tests rely on.
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
}
_STATUS_LINE = 7  # of postmaster.pid, counted from 0
_POLL = 0.01  # seconds


class PostgresServer(EmbeddedServer):
    """One server with its own data folder, listening on 127.0.0.1 and on a Unix socket.

    Runs as user `postgres` or `nobody` when we are root. Ends with our process, even if that is
    killed.
    """

    def __init__(
        self,
        installation: PostgresInstallation | None = None,
        settings: Mapping[str, str | int] | None = None,
    ) -> None:
        """Prepare a server of `installation` (default: the first of `installations()`).

        `settings` go to postgresql.conf, over ours, which are for tests: `fsync` is off.
        """
        self.installation = installation or preferred()
        # SIGQUIT is PostgreSQL's immediate shutdown: no checkpoint of data we remove anyway.
        super().__init__(
            f"The server {self.installation.name}", unprivileged(), last_signal=signal.SIGQUIT
        )
        self._settings = {**_TEST_SETTINGS, **(settings or {})}
        self._binaries = self.installation.binaries

    def stop(self) -> None:
        """End the server and remove its data, as `close` does."""
        self.close()

    def kill(self) -> None:
        """End every process of the server at once, as a crash would; `start()` recovers the data.

        The backends too: one that is left computing would keep the server from starting again.
        """
        child = self._running()
        postmaster = psutil.Process(child.pid)
        postmaster.suspend()  # else it could start one more backend behind our back
        backends = postmaster.children(recursive=True)
        for process in backends:
            process.kill()
        child.end()
        while any(_is_running(process) for process in backends):
            time.sleep(_POLL)

    @property
    def socket_directory(self) -> Path:
        """The folder of the Unix socket: libpq's `host`. Raises RuntimeError before `start()`."""
        return self.folder

    def url(self, database: str = "postgres") -> str:
        """Return the URL of a database, as libpq and SQLAlchemy understand it."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str, template: str | None = None) -> str:
        """Create a database, as a copy of `template` if given, and return its URL.

        Raises:
            psycopg2.Error: the name is taken, or somebody is connected to the template.

        """
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        self._execute(statement, name, template or "template1")
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop a database if it is there, and end the sessions that are connected to it."""
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)"), name)

    def _execute(self, statement: sql.SQL, *names: str) -> None:
        with closing(psycopg2.connect(self.url())) as connection:
            connection.autocommit = True  # databases are created outside of transactions
            with connection.cursor() as cursor:
                cursor.execute(statement.format(*map(sql.Identifier, names)))

    def _prepare(self, workspace: Workspace) -> None:
        self._binaries = reachable(
            self.installation.binaries, self._account, workspace.path / "installation"
        )
        data = workspace.path / "data"
        self._run_program(self._filling(data))
        with (data / "postgresql.conf").open("a") as configuration:
            for name, value in self._settings.items():
                escaped = str(value).replace("'", "''")
                configuration.write(f"{name} = '{escaped}'\n")

    def _filling(self, data: Path) -> list[str | Path]:
        """Return the command that fills a new data folder."""
        # Locale C is the one that every version has on every system.
        arguments = ("--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C")
        return [self._binaries / "initdb", "--pgdata", data, "--no-sync", *arguments]

    def _run_program(self, command: list[str | Path]) -> None:
        program = command[0]
        try:
            attempt = self._account.run(command)
        except OSError as error:
            msg = f"{program} could not be run as user {self._account.name}: {error.strerror}"
            raise ServerDidNotStart(msg) from error
        if attempt.returncode != 0:
            msg = f"{program} failed as user {self._account.name}:\n{attempt.stdout}"
            raise ServerDidNotStart(msg)

    def _command(self, folder: Path) -> list[str | Path]:
        command: list[str | Path] = [self._binaries / "postgres", "-D", folder / "data"]
        return [*command, "-h", "127.0.0.1", "-p", str(self.port), "-k", folder]

    def _ready(self, child: ChildServer, folder: Path) -> bool:
        # What pg_ctl looks at too. A connection would prove less: another server may have
        # taken the port.
        try:
            lines = (folder / "data" / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return lines[:1] == [str(child.pid)] and lines[_STATUS_LINE:] == ["ready   "]


def _is_running(process: psutil.Process) -> bool:
    # A process whose parent does not reap it stays a zombie; it holds no memory and no file.
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
