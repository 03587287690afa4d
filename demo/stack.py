"""The processes of the demo, and one run of every operation through the queue."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from celery.result import AsyncResult

from embedded.ports import free_port
from tasks.command_line.console import RESULT_COLUMNS, progress_lines, result_row, show_table
from tasks.command_line.group import loaded_app
from tasks.command_line.run import outcome_of
from tasks.operations import OPERATIONS
from tasks.progress import reported

_ROOT = Path(__file__).parent.parent
_UP_WITHIN_SECONDS = 60
_RUN_WITHIN_SECONDS = 120
_DOWN_WITHIN_SECONDS = 40


class DemoFailed(Exception):
    """A process of the demo did not do its part; the message holds the end of its log."""


@dataclass(frozen=True)
class Running:
    """The demo's processes, up."""

    honcho: subprocess.Popen[bytes]
    flower_url: str

    def wait_for_ctrl_c(self) -> None:
        """Block until the user has seen enough, or a process has died."""
        try:
            self.honcho.wait()
        except KeyboardInterrupt:
            return


@contextmanager
def processes(folder: Path) -> Iterator[Running]:
    """Run the Procfile (worker, beat, flower) for a block; its output goes to a log in `folder`."""
    port = free_port()
    log = folder / "honcho.log"
    binaries = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "FLOWER_PORT": str(port),
        "FLOWER_UNAUTHENTICATED_API": "true",
        "C_FORCE_ROOT": "1",  # a demo in a container runs as root; Celery would warn
        "PYTHONWARNINGS": "ignore",
    }
    with log.open("wb") as output:
        honcho = subprocess.Popen(
            [str(binaries / "honcho"), "start", "--no-colour", "-f", str(_ROOT / "Procfile")],
            cwd=_ROOT, env=environment, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        running = Running(honcho, f"http://127.0.0.1:{port}")
        _wait_until_up(running, log)
        yield running
    finally:
        _end(honcho)


def _wait_until_up(running: Running, log: Path) -> None:
    app, deadline = loaded_app(), time.monotonic() + _UP_WITHIN_SECONDS
    worker = flower = False
    while not (worker and flower):
        if running.honcho.poll() is not None or time.monotonic() > deadline:
            tail = log.read_text(errors="replace")[-3000:]
            raise DemoFailed(f"worker up: {worker}, Flower up: {flower}\n{tail}")
        worker = worker or bool(app.control.ping(timeout=0.5))
        flower = flower or _answers(f"{running.flower_url}/healthcheck")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):  # loopback
            return True
    except (urllib.error.URLError, OSError):
        return False


def _end(honcho: subprocess.Popen[bytes]) -> None:
    """End honcho, which ends its processes; whatever outlives that goes with its session."""
    honcho.terminate()
    try:
        honcho.wait(_DOWN_WITHIN_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(honcho.pid, signal.SIGKILL)
        honcho.wait()


def trigger_everything() -> bool:
    """Send each operation to the queue, watch it, show what all did; return whether all succeeded."""
    app = loaded_app()
    names = sorted((f"tasks.{operation}" for operation in OPERATIONS), key=_order)
    results: list[dict[str, Any]] = []
    for name in names:  # one after the other: several work on the same tables
        result = _watch(name, app.send_task(name))
        results += result.get("runs") or [result]
    _show_table(results)
    return all(result["success"] for result in results)


def _order(name: str) -> tuple[int, str]:
    """Archive before retention, which would leave nothing; look after the tables in the end."""
    return (2 if ".database." in name else 0 if name.endswith("archive") else 1), name


def _watch(name: str, answer: AsyncResult[Any]) -> dict[str, Any]:
    deadline = time.monotonic() + _RUN_WITHIN_SECONDS
    with progress_lines() as lines:
        while not answer.ready():
            if time.monotonic() > deadline:
                raise DemoFailed(f"{name} has not ended within {_RUN_WITHIN_SECONDS} s")
            _, progress = reported(answer)
            if progress is not None and lines is not None:
                lines.show(progress)
            time.sleep(0.1)
    return outcome_of(answer)


def _show_table(results: list[dict[str, Any]]) -> None:
    show_table("what each operation did", RESULT_COLUMNS, [result_row(r) for r in results])
    for result in results:
        for told in (result.get("error"), *result["warnings"]):
            if told:
                click.echo(f"{result['operation']} {result['policy']}: {told}")
