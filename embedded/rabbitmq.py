"""A RabbitMQ server of our own: empty, on loopback, gone when we are.

    with RabbitServer() as server:
        url = server.url()

It is Debian's or the vendor's package that is run, without its service: there is no wheel with
Erlang in it. Everybody on this machine can connect as its `guest`.
"""

import signal
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from embedded.accounts import Account, unprivileged
from embedded.child import ChildServer, ServerDidNotStart
from embedded.ports import free_port
from embedded.workspace import Workspace

__all__ = ["RabbitServer", "ServerDidNotStart", "how_to_install", "installed"]

# The scripts themselves. Those on PATH change to the user `rabbitmq` and to its folders.
_SCRIPTS = Path("/usr/lib/rabbitmq/bin")
_PORTS_TO_TRY = 3
_TAKEN = ("eaddrinuse", "Address already in use", "port_in_use")


def installed() -> bool:
    """Whether this machine has a RabbitMQ server that can be run."""
    return (_SCRIPTS / "rabbitmq-server").exists() and _epmd() is not None


def how_to_install() -> str:
    """Return what to tell somebody who misses it."""
    return (
        f"RabbitMQ is not installed here (no {_SCRIPTS}/rabbitmq-server); install it with "
        "`apt-get install --no-install-recommends rabbitmq-server`"
    )


class RabbitServer:
    """One node with its own data folder, Erlang cookie, port mapper and log.

    Nothing of an installed service is read or written: not its configuration, not its data, not
    its `epmd`. Runs as user `postgres` or `nobody` when we are root. Stopped or killed, it can be
    started again on the same ports, with its durable queues. Ends with our process, even if that
    is killed.

    Starts in 3 s, and in 2.5 s again on its data, on two cores that others use too.
    """

    def __init__(self, settings: Mapping[str, str | int] | None = None) -> None:
        """Prepare a server; `settings` go to its rabbitmq.conf.

        Raises:
            RuntimeError: RabbitMQ is not installed.

        """
        if not installed():
            raise RuntimeError(how_to_install())
        self._settings = dict(settings or {})
        self._account = unprivileged()
        self._workspace: Workspace | None = None
        self._mapper: _PortMapper | None = None
        self._child: ChildServer | None = None
        self._port: int | None = None
        self._distribution_port = 0

    def start(self) -> Self:
        """Start, on the ports and data of the last time if there was one.

        Raises:
            ServerDidNotStart: with the server's log.

        """
        if self._child is not None and self._child.running:
            return self
        if self._workspace is not None:
            self._launch(self._workspace)
            return self
        try:
            self._workspace = Workspace(self._account, last_signal=signal.SIGKILL)
            self._mapper = _PortMapper(self._account)
            self._launch_on_free_ports(self._workspace)
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
        """End the server by SIGKILL; durable queues keep what it has confirmed."""
        if self._child is not None:
            self._child.end()
            self._child = None

    def restart(self) -> Self:
        """Stop in good order and start again."""
        self.stop()
        return self.start()

    def close(self) -> None:
        """Kill the server and remove its data. Happens by itself, at the latest when we end."""
        self.kill()
        if self._mapper is not None:
            self._mapper.close()
            self._mapper = None
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
        """The node's process id. Raises RuntimeError when it is not running."""
        return self._running().pid

    @property
    def port(self) -> int:
        """The AMQP port on 127.0.0.1. Raises RuntimeError before the first `start()`."""
        if self._port is None:
            msg = "The RabbitMQ server has no port yet; start() it first"
            raise RuntimeError(msg)
        return self._port

    @property
    def folder(self) -> Path:
        """Where all its files are. Raises RuntimeError before the first `start()`."""
        if self._workspace is None:
            msg = "The RabbitMQ server has no folder yet; start() it first"
            raise RuntimeError(msg)
        return self._workspace.path

    def log(self) -> str:
        """Return the last kilobytes the server has logged since it was started."""
        return self._running().log()

    def url(self) -> str:
        """Return the URL of its virtual host `/`, as Celery understands it."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def _running(self) -> ChildServer:
        if self._child is None or not self._child.running:
            msg = "The RabbitMQ server is not running; start() it first"
            raise RuntimeError(msg)
        return self._child

    def _launch_on_free_ports(self, workspace: Workspace) -> None:
        for attempts_left in reversed(range(_PORTS_TO_TRY)):
            self._port, self._distribution_port = free_port(), free_port()
            self._write_configuration(workspace.path)
            try:
                self._launch(workspace)
            except ServerDidNotStart as error:
                if attempts_left == 0 or not any(told in str(error) for told in _TAKEN):
                    raise
            else:
                return

    def _write_configuration(self, folder: Path) -> None:
        settings: dict[str, str | int] = {
            "listeners.tcp.1": f"127.0.0.1:{self.port}",
            "log.file": "false",
            "log.console": "true",
            "log.console.level": "info",
            **self._settings,
        }
        # Not in rabbitmq.conf's language: how often a channel looks for overdue deliveries, a
        # minute by default. A test that waits for that would take a minute.
        files = {
            "rabbitmq.conf": "\n".join(f"{name} = {value}" for name, value in settings.items()),
            "advanced.config": "[{rabbit, [{channel_tick_interval, 500}]}].\n",
            "enabled_plugins": "[].\n",
            "environment": "",
        }
        for name, text in files.items():
            (folder / name).write_text(f"{text}\n" if name.endswith("conf") else text)
        for name in ("home", "conf.d", "mnesia", "logs"):
            (folder / name).mkdir(exist_ok=True)
        self._account.take(folder)

    def _launch(self, workspace: Workspace) -> None:
        assert self._mapper is not None
        child = self._child = ChildServer(
            [_SCRIPTS / "rabbitmq-server"],
            workspace,
            self._account,
            self._environment(workspace.path, self._mapper.port),
        )
        child.wait_until(lambda: "Server startup complete" in child.log())

    def _environment(self, folder: Path, mapper_port: int) -> dict[str, str]:
        return {
            "HOME": str(folder / "home"),  # of the Erlang cookie
            "ERL_EPMD_PORT": str(mapper_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            # The script then replaces itself by the node, and its process id is ours.
            "detached": "true",
            "RABBITMQ_NODENAME": f"housekeeping-{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                # Loopback only; and one scheduler starts sooner than one for each core.
                "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +A 8"
            ),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "logs"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONFIG_FILES": str(folder / "conf.d"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "environment"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        }


class _PortMapper:
    """An `epmd` of our own. Erlang would start one that serves every node and outlives us."""

    def __init__(self, account: Account) -> None:
        self._workspace = Workspace(account, last_signal=signal.SIGKILL)
        self.port = free_port()
        program = _epmd()
        assert program is not None
        command: list[str | Path] = [program, "-port", str(self.port), "-address", "127.0.0.1"]
        try:
            self._child = ChildServer(command, self._workspace, account)
        except BaseException:
            self._workspace.close()
            raise

    def close(self) -> None:
        self._child.end()
        self._workspace.close()


def _epmd() -> Path | None:
    """Return the port mapper of the installed Erlang."""
    return next(iter(sorted(Path("/usr/lib/erlang").glob("erts-*/bin/epmd"))), None)
