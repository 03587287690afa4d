"""Server programs of ours: one run of one, from its launch to its end, and what they have in common."""

import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from embedded.accounts import ENVIRONMENT, OURSELVES, Account
from embedded.ports import free_port
from embedded.workspace import Workspace

START_WITHIN = 60.0  # seconds; recovery after a kill on a loaded machine takes its time
STOP_WITHIN = 15.0  # seconds for each signal
_POLL = 0.01  # seconds
_LOG_SHOWN = 8_000  # bytes
_PORTS_TO_TRY = 3


class ServerDidNotStart(RuntimeError):
    """A server program could not be run, ended while starting, or never became ready."""


class ChildServer:
    """A running server: our child, logging to the file `log` in its workspace."""

    def __init__(
        self,
        command: Sequence[str | Path],
        workspace: Workspace,
        account: Account = OURSELVES,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Launch the command; `environment` is added to what every program sees.

        Raises:
            ServerDidNotStart: the program could not be run.

        """
        self.name = Path(command[0]).name
        self._workspace = workspace
        self._log = workspace.path / "log"
        with self._log.open("ab") as log:
            self._log_start = log.tell()
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd="/",  # ours may be closed to this user
                    env={**ENVIRONMENT, **(environment or {})},
                    start_new_session=True,  # else Ctrl-C on our terminal would stop it before us
                    user=account.user,
                    group=account.group,
                    extra_groups=account.extra_groups,
                )
            except OSError as error:
                msg = f"{command[0]} could not be run as user {account.name}: {error.strerror}"
                raise ServerDidNotStart(msg) from error
        workspace.guard(self._process.pid)

    @property
    def pid(self) -> int:
        """The process id; it is ours to wait for, so nobody else gets it while we live."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def log(self) -> str:
        """Return the last kilobytes of what this run has logged."""
        with self._log.open("rb") as log:
            log.seek(max(self._log_start, log.seek(0, os.SEEK_END) - _LOG_SHOWN))
            return log.read().decode(errors="replace")

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Return as soon as `ready` says so.

        Raises:
            ServerDidNotStart: the process ended or was not ready in a minute; holds its log.

        """
        deadline = time.monotonic() + START_WITHIN
        while not ready():
            if not self.running:
                self._workspace.guard(None)  # its number may be another process's by now
                what = f"ended with status {self._process.returncode} while starting"
            elif time.monotonic() > deadline:
                what = f"was not ready after {START_WITHIN:.0f} seconds"
            else:
                time.sleep(_POLL)
                continue
            msg = f"{self.name} (process {self.pid}) {what}. Its log:\n{self.log()}"
            raise ServerDidNotStart(msg)

    def end(self, *signals: signal.Signals) -> None:
        """Send these signals, each when the one before had no effect in 15 seconds."""
        for each in (*signals, signal.SIGKILL):
            self._process.send_signal(each)
            try:
                self._process.wait(STOP_WITHIN)
            except subprocess.TimeoutExpired:
                continue
            break
        self._workspace.guard(None)


class EmbeddedServer(ABC):
    """One server on 127.0.0.1 with its own data folder. Ends with our process, even if that is killed.

    Killed, it can be started again on the same port and data. A class of it says how its program is
    called, and how to tell that it is ready.
    """

    _port_taken: ClassVar[tuple[str, ...]] = ("Address already in use",)
    """what its log says when somebody else has the port"""

    def __init__(self, called: str, account: Account, last_signal: signal.Signals) -> None:
        """Prepare a server; nothing runs yet.

        `called`: its name in messages. `last_signal` ends it when its data goes as well: at `close`,
        and should we vanish.
        """
        self._called = called
        self._account = account
        self._last_signal = last_signal
        self._workspace: Workspace | None = None
        self._child: ChildServer | None = None
        self._port: int | None = None

    def start(self) -> Self:
        """Start, on the port and data of the last time if there was one.

        Raises:
            ServerDidNotStart: with the server's log.

        """
        if self._child is not None and self._child.running:
            return self
        if self._workspace is not None:
            self._launch(self._workspace)
            return self
        try:
            self._workspace = Workspace(self._account, last_signal=self._last_signal)
            self._prepare(self._workspace)
            self._launch_on_a_free_port(self._workspace)
        except BaseException:  # an interrupt too must not leave a folder behind
            self.close()
            raise
        return self

    def kill(self) -> None:
        """End the server by SIGKILL and keep its data. Does nothing when it is not running."""
        self._end()

    def close(self) -> None:
        """End the server and remove its data. Happens by itself, at the latest when we end."""
        self._end(self._last_signal)
        self._dispose()
        if self._workspace is not None:
            self._workspace.close()
            self._workspace = None
        self._port = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The server's process id. Raises RuntimeError when it is not running."""
        return self._running().pid

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1. Raises RuntimeError before the first `start()`."""
        if self._port is None:
            msg = f"{self._called} has no port yet; start() it first"
            raise RuntimeError(msg)
        return self._port

    @property
    def folder(self) -> Path:
        """Where all its files are. Raises RuntimeError before the first `start()`."""
        if self._workspace is None:
            msg = f"{self._called} has no folder yet; start() it first"
            raise RuntimeError(msg)
        return self._workspace.path

    def log(self) -> str:
        """Return the last kilobytes the server has logged since it was started."""
        return self._running().log()

    @abstractmethod
    def _command(self, folder: Path) -> list[str | Path]:
        """Return the program and its arguments, for the port it has now."""

    @abstractmethod
    def _ready(self, child: ChildServer, folder: Path) -> bool:
        """Whether this very process answers; another server may have taken the port."""

    def _environment(self, folder: Path) -> dict[str, str]:  # noqa: ARG002 - not every server needs it
        """Return what to add to the program's environment."""
        return {}

    def _prepare(self, workspace: Workspace) -> None:  # noqa: B027 - not every server needs anything
        """Make what it needs before its first start."""

    def _new_port(self, folder: Path) -> None:  # noqa: ARG002 - not every server needs it
        """Choose where it listens from now on."""
        self._port = free_port()

    def _dispose(self) -> None:  # noqa: B027 - not every server has anything
        """End what was made for it beside its own process."""

    def _running(self) -> ChildServer:
        if self._child is None or not self._child.running:
            msg = f"{self._called} is not running; start() it first"
            raise RuntimeError(msg)
        return self._child

    def _end(self, *signals: signal.Signals) -> None:
        if self._child is not None:
            self._child.end(*signals)
            self._child = None

    def _launch_on_a_free_port(self, workspace: Workspace) -> None:
        for attempts_left in reversed(range(_PORTS_TO_TRY)):
            self._new_port(workspace.path)
            try:
                self._launch(workspace)
            except ServerDidNotStart as error:
                if attempts_left == 0 or not any(told in str(error) for told in self._port_taken):
                    raise
            else:
                return

    def _launch(self, workspace: Workspace) -> None:
        folder = workspace.path
        child = self._child = ChildServer(
            self._command(folder), workspace, self._account, self._environment(folder)
        )
        child.wait_until(lambda: self._ready(child, folder))


class LastingServer(EmbeddedServer):
    """A server that can also be stopped in good order, and goes on later with what it has kept."""

    def stop(self) -> None:
        """End the server in good order and keep its data. Does nothing when it is not running."""
        self._end(signal.SIGTERM)

    def restart(self) -> Self:
        """Stop in good order and start again."""
        self.stop()
        return self.start()
