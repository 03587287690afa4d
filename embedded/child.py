"""One run of a server program, from its launch to its end."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from embedded.accounts import ENVIRONMENT, OURSELVES, Account
from embedded.workspace import Workspace

START_WITHIN = 60.0  # seconds; recovery after a kill on a loaded machine takes its time
STOP_WITHIN = 15.0  # seconds for each signal
_POLL = 0.01  # seconds
_LOG_SHOWN = 8_000  # bytes


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
