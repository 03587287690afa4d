"""Checks and publishes what beat_schedule.py says."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from celery import Celery
from celery.schedules import crontab

from settings import Suite
from tasks.application import TASK_MODULES, app
from tasks.configuration import RefusedToStart, current_suite

# A message that waited longer is a run of yesterday: the next one does its work too.
_EXPIRES_SECONDS = 12 * 3600


@dataclass(frozen=True)
class Entry:
    """One line of the schedule."""

    name: str
    task: str
    cron: str
    """minute hour day-of-month month day-of-week, UTC"""


def publish(*entries: Entry) -> dict[str, dict[str, Any]]:
    """Check the entries and give those whose system is switched on to Celery beat.

    Raises RefusedToStart for a task name that is not registered, a cron that can't be read, or a
    name used twice.
    """
    for module in TASK_MODULES:
        import_module(module)
    check(entries, app)
    suite = current_suite()
    switched_on = {policy.task for policy in suite.all_policies()}
    schedule = {
        entry.name: {
            "task": entry.task,
            "schedule": crontab.from_string(entry.cron),
            "options": {
                "countdown": splay_seconds(entry.name, suite),
                "expires": _EXPIRES_SECONDS,
                "headers": {"periodic_task_name": entry.name},
            },
        }
        for entry in entries
        if entry.task in switched_on
    }
    app.conf.beat_schedule = schedule
    return schedule


def check(entries: Iterable[Entry], celery: Celery) -> None:
    """Refuse what beat would stumble over at night."""
    seen: set[str] = set()
    for entry in entries:
        if entry.name in seen:
            raise RefusedToStart(f"beat_schedule.py: two entries are called {entry.name!r}")
        seen.add(entry.name)
        if entry.task not in celery.tasks:
            near = get_close_matches(entry.task, list(celery.tasks), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise RefusedToStart(
                f"beat_schedule.py: {entry.name!r} names the task {entry.task!r}, "
                f"which is not registered{hint}"
            )
        _readable(entry, crontab.from_string)


def _readable(entry: Entry, read: Callable[[str], object]) -> None:
    try:
        read(entry.cron)
    except ValueError as error:
        raise RefusedToStart(
            f"beat_schedule.py: {entry.name!r} has the cron {entry.cron!r}: {error}"
        ) from error


def splay_seconds(name: str, suite: Suite) -> float:
    """Return how far this installation's entry is shifted.

    Always the same for one installation and entry, spread evenly over many: celery issue 5401 tells
    of a fleet that ran its clean-up at 04:00 sharp, all at once.
    """
    seed = f"{suite.redis_url.reveal()}|{name}".encode()
    share = int.from_bytes(hashlib.sha256(seed).digest()[:4]) / 2**32
    return round(share * suite.splay.total_seconds(), 1)
