"""A RabbitMQ server of our own: empty, on loopback, gone when we are.

    with RabbitServer() as server:
        url = server.url()

It is Debian's or the vendor's package that is run, without its service: there is no wheel with
Erlang in it. Everybody on this machine can connect as its `guest`.
"""

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from embedded.accounts import Account, unprivileged
from embedded.child import ChildServer, LastingServer, ServerDidNotStart
from embedded.ports import free_port
from embedded.workspace import Workspace

__all__ = ["RabbitServer", "ServerDidNotStart", "how_to_install", "installed"]

# The scripts themselves. Those on PATH change to the user `rabbitmq` and to its folders.
_SCRIPTS = Path("/usr/lib/rabbitmq/bin")


def installed() -> bool:
    """Whether this machine has a RabbitMQ server that can be run."""
    return (_SCRIPTS / "rabbitmq-server").exists() and _epmd() is not None


def how_to_install() -> str:
    """Return what to tell somebody who misses it."""
    return (
        f"RabbitMQ is not installed here (no {_SCRIPTS}/rabbitmq-server); install it with "
        "`apt-get install --no-install-recommends rabbitmq-server`"
    )


class RabbitServer(LastingServer):
    """One node with its own data folder, Erlang cookie, port mapper and log.

    Nothing of an installed service is read or written: not its configuration, not its data, not
    its `epmd`. Runs as user `postgres` or `nobody` when we are root. Stopped or killed, it can be
    started again on the same ports, with its durable queues. Ends with our process, even if that
    is killed.

    Starts in 3 s, and in 2.5 s again on its data, on two cores that others use too.
    """

    _port_taken: ClassVar = ("eaddrinuse", "Address already in use", "port_in_use")

    def __init__(self, settings: Mapping[str, str | int] | None = None) -> None:
        """Prepare a server; `settings` go to its rabbitmq.conf.

        Raises:
            RuntimeError: RabbitMQ is not installed.

        """
        if not installed():
            raise RuntimeError(how_to_install())
        super().__init__("The RabbitMQ server", unprivileged(), last_signal=signal.SIGKILL)
        self._settings = dict(settings or {})
        self._mapper: _PortMapper | None = None
        self._distribution_port = 0

    def url(self) -> str:
        """Return the URL of its virtual host `/`, as Celery understands it."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def _prepare(self, workspace: Workspace) -> None:  # noqa: ARG002 - it has one of its own
        self._mapper = _PortMapper(self._account)

    def _new_port(self, folder: Path) -> None:
        super()._new_port(folder)
        self._distribution_port = free_port()
        self._write_configuration(folder)

    def _dispose(self) -> None:
        if self._mapper is not None:
            self._mapper.close()
            self._mapper = None

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

    def _command(self, folder: Path) -> list[str | Path]:  # noqa: ARG002 - told by its environment
        return [_SCRIPTS / "rabbitmq-server"]

    def _ready(self, child: ChildServer, folder: Path) -> bool:  # noqa: ARG002 - it logs to us
        return "Server startup complete" in child.log()

    def _environment(self, folder: Path) -> dict[str, str]:
        assert self._mapper is not None
        return {
            "HOME": str(folder / "home"),  # of the Erlang cookie
            "ERL_EPMD_PORT": str(self._mapper.port),
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
