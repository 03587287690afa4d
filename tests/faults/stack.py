"""Real worker and beat processes of the probe app, and what they have written down."""

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import redis
from celery import Celery

from embedded.valkey import ValkeyServer
from tests.conditions import wait_until

_ROOT = Path(__file__).parents[2]
_START_WITHIN = 20.0  # seconds; 0.7 s on an idle machine


class CeleryProcess:
    """One `celery -A tests.faults.probe …`, in a session of its own, logging to a file."""

    def __init__(self, words: list[str], environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "tests.faults.probe", *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=_ROOT,
                env={**os.environ, **environment},
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        return self._process.poll()

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL to the main process only; Celery's children end with it."""
        self._process.kill()
        self._process.wait()

    def children(self) -> list[psutil.Process]:
        """The pool of a prefork worker."""
        return list(psutil.Process(self._process.pid).children())

    def said(self, text: str) -> bool:
        return text in self.log()

    def wait_until_it_says(self, text: str, within_seconds: float = _START_WITHIN) -> None:
        def said() -> bool:
            return self.said(text) or not self.running

        wait_until(said, within_seconds, otherwise=self.log)
        assert self.said(text), self.log()

    def wait_until_it_is_back(self) -> None:
        """Wait until a worker has found its broker a second time."""
        connections = "Connected to redis://"
        wait_until(lambda: self.log().count(connections) > 1, _START_WITHIN, otherwise=self.log)

    def stop(self) -> None:
        """Let it leave in good order, as on SIGTERM."""
        self.send(signal.SIGTERM)
        self._process.wait(_START_WITHIN)

    def end(self) -> None:
        """End it and all its children at once, whatever state they are in."""
        with suppress(ProcessLookupError):  # its own session, so the group is its children
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class Stack:
    """A broker, the processes on it, and the journal of what their tasks did."""

    def __init__(self, valkey: ValkeyServer, folder: Path) -> None:
        self.valkey = valkey
        self._folder = folder
        self._journal = folder / "journal"
        self._journal.touch()
        self._processes: list[CeleryProcess] = []
        self.redbeat_url = valkey.url()
        self._settings: dict[str, Any] = {}
        self.publisher = Celery("publisher", broker=valkey.url(), set_as_current=False)

    def use_broker(self, url: str, transport_options: Mapping[str, Any]) -> None:
        """Use another broker than Valkey."""
        self._settings = {"broker_url": url, "broker_transport_options": transport_options}
        self.publisher.conf.update(self._settings)

    def worker(self, *words: str, **settings: Any) -> CeleryProcess:
        """Start a worker (one task at a time unless told) and wait until it is ready."""
        (worker,) = self.workers(1, *words, **settings)
        return worker

    def workers(self, count: int, *words: str, **settings: Any) -> list[CeleryProcess]:
        """Start several workers and wait until all are ready."""
        words = ("--concurrency=1", *words, "--without-gossip", "--without-mingle")
        started = []
        for _ in range(count):
            name = f"--hostname=worker{len(self._processes)}@probe"
            started.append(self._start(["worker", "-l", "info", name, *words], settings))
        for worker in started:
            worker.wait_until_it_says(" ready.")
        return started

    def beat(
        self, schedule: Mapping[str, Mapping[str, Any]], *words: str, **settings: Any
    ) -> CeleryProcess:
        """Start a beat and wait until it has begun."""
        pidfile = f"--pidfile={self._folder}/beat{len(self._processes)}.pid"
        beat = self._start(["beat", "-l", "debug", pidfile, *words], settings, schedule)
        beat.wait_until_it_says("beat: Starting...")
        return beat

    def _start(
        self,
        words: list[str],
        settings: Mapping[str, Any],
        schedule: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> CeleryProcess:
        environment = {
            "PROBE_BROKER": self.valkey.url(),
            "PROBE_REDBEAT": self.redbeat_url,
            "PROBE_JOURNAL": str(self._journal),
            "PROBE_SCHEDULE": json.dumps(schedule or {}),
            "PROBE_SETTINGS": json.dumps({**self._settings, **settings}),
            "PYTHONWARNINGS": "ignore",
        }
        log = self._folder / f"{words[0]}{len(self._processes)}.log"
        process = CeleryProcess(words, environment, log)
        self._processes.append(process)
        return process

    def publish(self, name: str, seconds: float = 0, *, ballast: int = 0, **options: Any) -> None:
        """Send one `probe.work`, its message larger by `ballast` bytes."""
        arguments = [name, seconds, "x" * ballast]
        self.publisher.send_task("probe.work", args=arguments, **options)

    def client(self, db: int = 0) -> "redis.Redis":
        return redis.Redis.from_url(self.valkey.url(db), decode_responses=True)

    def journal(self, event: str, name: str | None = None) -> list[dict[str, Any]]:
        """What has been written down of one kind, in order."""
        lines = self._journal.read_text().splitlines(keepends=True)
        notes = [json.loads(line) for line in lines if line.endswith("\n")]
        return [note for note in notes if note["event"] == event and name in (None, note["name"])]

    def sent(self, entry: str) -> int:
        """How often beat has sent an entry; for stacks without a worker."""
        with self.client() as client:
            bodies = (json.loads(message)["body"] for message in client.lrange("celery", 0, -1))
            return sum(json.loads(base64.b64decode(body))[0] == [entry] for body in bodies)

    def reset_connections(self) -> None:
        """Close every connection to the broker from the broker's side."""
        with self.client() as client:
            for kind in ("normal", "pubsub"):
                client.client_kill_filter(_type=kind, skipme=True)

    def unacked(self) -> int:
        """How many messages are delivered but not acked."""
        with self.client() as client:
            return int(client.hlen("unacked"))

    def queued(self) -> int:
        """How many messages wait in the queue."""
        with self.client() as client:
            return int(client.llen("celery"))

    def begin(self, name: str, seconds: float) -> None:
        """Send one `probe.work` and wait until it runs."""
        self.publish(name, seconds)
        wait_until(lambda: self.journal("started", name), 10, otherwise=self.logs)

    def assert_ran_once(self, name: str, within_seconds: float) -> None:
        """Wait until a task has ended and every message is settled; no second run of it began."""
        wait_until(lambda: self.journal("ended", name), within_seconds, otherwise=self.logs)
        wait_until(lambda: not self.unacked() + self.queued(), within_seconds, otherwise=self.logs)
        assert len(self.journal("started", name)) == 1, self.logs()

    def logs(self) -> str:
        return "\n".join(process.log() for process in self._processes)

    def end(self) -> None:
        for process in self._processes:
            process.end()
        self.publisher.close()
