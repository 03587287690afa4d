"""Local processes in the place of Docker containers, for pytest-celery.

pytest-celery asks very little of a container: its state, its log, signals, a restart, and the ports
it listens on. `ProcessContainer` answers that for a process, with the names and shapes of the Docker
SDK; all classes of pytest-celery are then used as they are.
"""

import io
import os
import shlex
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar
from uuid import uuid4

import pytest

from tests.conditions import wait_until

STOP_WITHIN_SECONDS = 10.0
_HOSTNAME_LETTERS = 12  # of a container's id, which Docker makes its host name


class Node(Protocol):
    """What pytest-celery's container classes have in common."""

    def ready(self) -> bool: ...

    def logs(self) -> str: ...


NodeType = TypeVar("NodeType", bound=Node)


class ProcessContainer:
    """One local process in a session of its own that looks like a container of the Docker SDK.

    Its log is kept over restarts. `%h` in the command becomes the host name a container would have.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        *,
        environment: Mapping[str, str] | None = None,
        port: int | None = None,
        container_port: str | None = None,
    ) -> None:
        self.id = uuid4().hex
        self.name = f"{name}-{self.id[:6]}"
        self._hostname = self.id[:_HOSTNAME_LETTERS]
        self._command = [word.replace("%h", self._hostname) for word in command]
        self._folder = folder
        self._log = folder / f"{self.name}.log"
        self._environment = {**os.environ, **(environment or {})}
        self._port = port
        self._container_port = container_port
        self.attrs = self._attributes(environment or {})
        self.start()

    def _attributes(self, environment: Mapping[str, str]) -> dict[str, Any]:
        """Return what `docker inspect` would say, as far as pytest-celery looks."""
        address = f"127.0.0.1:{self._port}" if self._port else self._hostname
        ports = {self._container_port: [{"HostPort": str(self._port)}]} if self._port else {}
        return {
            "Config": {
                "Hostname": address,
                "Env": [f"{name}={value}" for name, value in environment.items()],
            },
            "HostConfig": {"PortBindings": {}},
            "NetworkSettings": {"Networks": {}, "Ports": ports},
        }

    def start(self) -> None:
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
                cwd=self._folder,
                start_new_session=True,
            )

    @property
    def status(self) -> str:
        return "running" if self._process.poll() is None else "exited"

    def reload(self) -> None:
        """Docker's objects are snapshots; this one looks at its process anew each time."""

    def kill(self, signal_: str | int | None = None, **named: str | int) -> None:
        """Send a signal as Docker does: to the main process, and SIGKILL to all of them."""
        wanted = signal_ or named.get("signal") or "SIGKILL"
        number = signal.Signals[wanted] if isinstance(wanted, str) else signal.Signals(wanted)
        if number != signal.SIGKILL:
            self._process.send_signal(number)
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(STOP_WITHIN_SECONDS)

    def stop(self, timeout: float = STOP_WITHIN_SECONDS) -> None:
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
        self.kill()  # what is left of it, children too

    def restart(self, timeout: float = STOP_WITHIN_SECONDS) -> None:
        self.stop(timeout)
        self.start()

    def wait(self, timeout: float = STOP_WITHIN_SECONDS) -> dict[str, int]:
        return {"StatusCode": self._process.wait(timeout)}

    def logs(self, **_: object) -> bytes:
        return self._log.read_bytes()

    def exec_run(self, cmd: str | Sequence[str], **_: object) -> tuple[int, bytes]:
        """Run a command where the process runs; return its exit code and output."""
        if self._port and "/proc/net/tcp" in str(cmd):
            return 0, self._listening()
        words = shlex.split(cmd) if isinstance(cmd, str) else list(cmd)
        if words[0] == "python":
            words[0] = sys.executable
        ended = subprocess.run(
            words,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._environment,
            cwd=self._folder,
        )
        return ended.returncode, ended.stdout

    def _listening(self) -> bytes:
        """Return a line of /proc/net/tcp as it would stand in the container, if somebody listens."""
        inside = int((self._container_port or "0/tcp").split("/")[0])
        with socket.socket() as probe:
            listens = probe.connect_ex(("127.0.0.1", self._port)) == 0
        return f" 0: 00000000:{inside:04X} 00000000:0000 0A x".encode() if listens else b""

    def get_archive(self, path: str) -> tuple[Iterator[bytes], dict[str, Any]]:
        """Return a file or folder as a tar stream."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.add(path, arcname=Path(path).name)
        return iter([archive.getvalue()]), {}

    def remove(self, **_: object) -> None:
        self.stop()


def run_node(
    request: pytest.FixtureRequest,
    node_class: type[NodeType],
    container: ProcessContainer,
    within_seconds: float = 60,
) -> NodeType:
    """Wrap a process as a node and wait until it is ready; it ends with the fixture."""
    request.addfinalizer(container.remove)
    node = node_class(container)  # type: ignore[call-arg]  # the Docker SDK's container there

    def ready() -> bool:
        assert container.status == "running", node.logs()
        return node.ready()

    wait_until(ready, within_seconds, otherwise=node.logs)
    return node
