"""One installation of ours on real servers: its environment, processes, and what its ledger says."""

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import redis
from celery import Celery
from celery.result import AsyncResult
from psycopg2.extras import RealDictCursor

from embedded.valkey import ValkeyServer
from tests.conditions import wait_until
from tests.faults.stack import CeleryProcess

BINARIES = Path(sys.executable).parent
OURS = ("housekeeping", "maintenanceconfig", "remap_sigterm")
COMMAND_WITHIN = 60.0  # seconds


class SuiteProcess(CeleryProcess):
    """One of our programs in a session of its own, logging to a file."""

    def __init__(
        self, command: list[str], environment: Mapping[str, str], folder: Path, name: str
    ) -> None:
        self._log = folder / f"{name}.log"
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(BINARIES / command[0]), *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,  # where no housekeeping.toml lies
                env=environment,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def children(self) -> list[psutil.Process]:
        """The pool's processes of a worker."""
        return psutil.Process(self.pid).children()

    def wait(self, within_seconds: float) -> int:
        """Wait for its end and return the exit code."""
        try:
            return self._process.wait(within_seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {within_seconds} s\n{self.log()}") from None


class Installation:
    """Settings for one database and one Valkey, and the processes that run with them.

    `broker_url` in the settings is another broker than Valkey.
    """

    def __init__(
        self, database: str, valkey: ValkeyServer, folder: Path, **settings: object
    ) -> None:
        self.database = database
        self.valkey = valkey
        self.folder = folder
        self._processes: list[SuiteProcess] = []
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.lower().startswith(OURS)},
            **variables(
                broker_url=valkey.url(0),
                result_backend=valkey.url(1),
                redis_url=valkey.url(2),
                database_url=database,
                splay=0,
            ),
            **variables(**settings),
            "PYTHONWARNINGS": "ignore",
            "PYTHONUNBUFFERED": "1",
        }
        self.client = Celery(
            "client",
            broker=str(settings.get("broker_url", valkey.url(0))),
            backend=valkey.url(1),
            set_as_current=False,
        )
        self.client.conf.task_default_queue = "housekeeping"
        if "broker_url" in settings:
            self.client.conf.broker_transport_options = {"confirm_publish": True}

    def worker(self, *words: str, **extra: str) -> SuiteProcess:
        """Start `celery -A tasks worker` (one process unless told) and wait until it is ready.

        Words after `--` are Celery settings, such as `worker.soft_shutdown_timeout=1`.
        """
        name = f"worker{len(self._processes)}"
        celery = ["celery", "-A", "tasks", "worker", "-l", "info", f"--hostname={name}@test"]
        quick = ["--without-gossip", "--without-mingle", "--concurrency=1"]
        worker = self.start([*celery, *quick, *words], name, **extra)
        worker.wait_until_it_says(" ready.", within_seconds=40)
        return worker

    def start(self, command: list[str], name: str, **extra: str) -> SuiteProcess:
        """Start one of our programs; it ends with the installation."""
        process = SuiteProcess(command, {**self.environment, **extra}, self.folder, name)
        self._processes.append(process)
        return process

    def run(self, *command: str, **extra: str) -> "subprocess.CompletedProcess[str]":
        """Run one of our programs to its end; stdout and stderr are pipes."""
        return subprocess.run(
            [str(BINARIES / command[0]), *command[1:]],
            stdin=subprocess.DEVNULL,
            check=False,
            capture_output=True,
            text=True,
            timeout=COMMAND_WITHIN,
            cwd=self.folder,
            env={**self.environment, **extra},
        )

    def housekeeping(self, *words: str, **extra: str) -> "subprocess.CompletedProcess[str]":
        """Run the `housekeeping` command to its end."""
        return self.run("housekeeping", *words, **extra)

    def send(self, task: str = "tasks.tables.purge", **options: Any) -> str:
        """Send a task through the queue; return its id."""
        return str(self.client.send_task(task, **options).id)

    def outcome(self, task_id: str, within_seconds: float = 60) -> AsyncResult[Any]:
        """Wait until a task has ended; Valkey may be away meanwhile."""
        answer: AsyncResult[Any] = self.client.AsyncResult(task_id)

        def ended() -> bool:
            with suppress(redis.RedisError, OSError):
                return bool(answer.ready())
            return False

        wait_until(ended, within_seconds, otherwise=self.told)
        return answer

    def rows(self, statement: str, *values: object) -> list[dict[str, Any]]:
        """What a query says, on a connection of its own."""
        with closing(psycopg2.connect(self.database)) as connection:
            connection.autocommit = True
            with connection.cursor(cursor_factory=RealDictCursor) as cursor:
                cursor.execute(statement, values or None)
                return [dict(row) for row in cursor.fetchall()] if cursor.description else []

    def runs(self) -> list[dict[str, Any]]:
        """The ledger's runs, oldest first; none while there is no ledger."""
        with suppress(psycopg2.errors.UndefinedTable):
            return self.rows("SELECT * FROM housekeeping.run ORDER BY started_at")
        return []

    def windows(self) -> list[dict[str, Any]]:
        """The ledger's windows in the order of their commits; none while there is no ledger."""
        with suppress(psycopg2.errors.UndefinedTable):
            return self.rows("SELECT * FROM housekeeping.run_window ORDER BY committed_at")
        return []

    def wait_for_windows(self, count: int, within_seconds: float = 30) -> None:
        """Wait until so many windows are committed, of whatever runs."""

        def committed() -> bool:
            return len(self.windows()) >= count

        wait_until(committed, within_seconds, otherwise=self.told)

    def told(self) -> str:
        """All logs and the runs, for a failed test."""
        logs = [f"--- {p._log.name}\n{p.log()[-6000:]}" for p in self._processes]
        with suppress(psycopg2.Error):
            logs.append("\n".join(str(run) for run in self.runs()))
        return "\n".join(logs)

    def end(self) -> None:
        for process in self._processes:
            process.end()
        self.client.close()


def variables(**settings: object) -> dict[str, str]:
    """Return environment variables for settings: `tables__events__duty=1` is one."""
    return {f"HOUSEKEEPING__{name.upper()}": str(value) for name, value in settings.items()}
