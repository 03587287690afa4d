"""Work that is begun in processes of its own and killed, most of it once it has got to work."""

import multiprocessing
import random
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from typing import Any

import psycopg2

from housekeeping.engine.run import Surroundings
from housekeeping.stores.redis.connection import connect
from tests.conditions import stays_true, wait_until


@dataclass(frozen=True)
class Killing:
    """How work is killed."""

    work: Callable[..., object]
    """called with a database's URL, a Redis' URL, and more words"""
    words: Sequence[str]
    at_any_moment: float
    """share of kills that come at any moment; the others once the run has committed something"""
    longest: tuple[float, float]
    """seconds up to a kill: at any moment, and since something was committed"""

    def kill(self, times: int, moments: random.Random) -> int:
        """Begin the work so many times, and kill it; return how often it had committed something and
        had more to do.
        """
        return sum(self._killed_at_work(moments) for _ in range(times))

    def _killed_at_work(self, moments: random.Random) -> bool:
        url, redis_url, *_ = self.words
        before = windows(url)
        child = _forking(self.work).Process(target=self.work, args=tuple(self.words))
        child.start()
        any_moment, since = self.longest
        if moments.random() < self.at_any_moment:
            stays_true(child.is_alive, moments.uniform(0, any_moment))
        else:
            wait_until(partial(_working_or_ended, url, before, child), 30)
            stays_true(child.is_alive, moments.uniform(0, since))
        at_work = child.is_alive() and windows(url) > before
        child.kill()
        child.join()
        wait_until(lambda: not _leases(redis_url), 5)
        return at_work


def _forking(work: Callable[..., object]) -> multiprocessing.context.ForkServerContext:
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload([work.__module__])
    return forking


def _working_or_ended(url: str, before: int, child: BaseProcess) -> bool:
    return windows(url) > before or not child.is_alive()


def _leases(redis_url: str) -> list[bytes]:
    """Return the leases of runs that died, which live a little longer."""
    with closing(connect(redis_url)) as client:
        return list(client.scan_iter("{housekeeping:lease:*"))


def windows(url: str) -> int:
    """Return how many windows were ever committed, by whatever operation."""
    try:
        return int(execute(url, "SELECT count(*) FROM housekeeping.run_window")[0][0])
    except psycopg2.errors.UndefinedTable:
        return 0


def around(redis_url: str) -> Surroundings:
    return Surroundings(connect(redis_url))


def execute(url: str, statements: str) -> list[tuple[Any, ...]]:
    with closing(psycopg2.connect(url)) as session, session, session.cursor() as cursor:
        cursor.execute(statements)
        return cursor.fetchall() if cursor.description else []
