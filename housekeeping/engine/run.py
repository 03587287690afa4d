"""What every run shares, whatever it works on: who asked, the lease, the ledger row."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from redis import Redis
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from housekeeping.engine.pacing import Clock, Rest, SystemClock
from housekeeping.policies.events import EventStream, RunWaiting
from housekeeping.policies.pace import Pace
from housekeeping.policies.policy import Policy
from housekeeping.policies.result import RunResult, StopReason
from housekeeping.stores.postgres.connection import connected, guarded
from housekeeping.stores.postgres.ledger_schema import ensure_ledger, ledger_missing
from housekeeping.stores.postgres.run_ledger import (
    RunIdentity,
    Started,
    abandoned_runs,
    close_abandoned,
    end_run,
    result_of,
    start_run,
)
from housekeeping.stores.postgres.window_ledger import summary_of
from housekeeping.stores.redis.control import Control
from housekeeping.stores.redis.lease import Lease

_LEDGER_PACE = Pace(lock_timeout=timedelta(seconds=5))
_TWIN_STEP_SECONDS = 0.5
_TWIN_MARGIN_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Request:
    """Who asked for a run, and how."""

    run_by: str
    """user@host"""
    run_id: UUID = field(default_factory=uuid4)
    """the same for every attempt of one run"""
    task_id: str | None = None
    dry_run: bool = False
    limit: int | None = None
    """at most so many rows"""
    will_retry: bool = False
    """whoever asked asks again after RunInterrupted; the ledger row then stays open for that"""
    confirmed: bool = False
    """whoever asked has said yes to what a safety limit would stop"""
    exact: bool = False
    """a dry run counts every row, however long that takes"""
    walker: str | None = None
    """`heap` or `index` instead of the planner's choice; for measurements"""


Recruit = Callable[[Policy, UUID, int], None]
"""Asks so many other workers to share a run. They may come late, or never: nobody waits for them."""


@dataclass(frozen=True)
class Surroundings:
    """What a run needs from outside."""

    redis: Redis
    ledger_url: str | None = None
    """the housekeeping database; None keeps runs in the target's own"""
    events: EventStream = field(default_factory=EventStream)
    clock: Clock = field(default_factory=SystemClock)
    recruit: Recruit | None = None
    """None where nobody could come: then no run is split"""
    workers_per_database: int = 2
    """at most so many runs, and workers that share one, work on one database at once"""

    @property
    def control(self) -> Control:
        return Control(self.redis)


class LeaseHeld(Exception):
    """Another run holds the lease; or this very run does, in a worker that is alive."""

    def __init__(self, *, by_our_twin: bool) -> None:
        super().__init__()
        self.by_our_twin = by_our_twin


@contextmanager
def leased(
    target: str, operation: str, policy: str, pace: Pace, request: Request, around: Surroundings
) -> Iterator[Lease]:
    """Hold the lease on a target for a block.

    A lease left by an earlier attempt of this very run belongs to a worker that is lost: it is
    waited for, as it expires soon. Anybody else's raises LeaseHeld at once.
    """
    lease = Lease(around.redis, target, str(request.run_id), pace.lease_ttl.total_seconds())
    waited = 0.0
    while not lease.acquire():
        holder = lease.holder()
        if holder is None:
            continue
        patience = pace.lease_ttl.total_seconds() + _TWIN_MARGIN_SECONDS
        twin = holder.run_id == str(request.run_id)
        if not twin or waited > patience:
            raise LeaseHeld(by_our_twin=twin)
        around.events.publish(
            RunWaiting(
                operation=operation,
                policy=policy,
                run_id=str(request.run_id),
                cause="the lease of a lost worker to expire",
                seconds=holder.seconds_left,
            )
        )
        rest = Rest(1.0, around.clock, lambda: None)
        waited += rest.pause(min(_TWIN_STEP_SECONDS, holder.seconds_left + 0.01))
    try:
        yield lease
    finally:
        lease.release()


class RunRecord:
    """A run's row in the housekeeping database.

    `shared`: the run's own connection, where the ledger is in the same database: each of the
    three it saves took 6 ms. Elsewhere one is opened only while something is written.
    """

    def __init__(self, identity: RunIdentity, url: str, shared: Connection | None = None) -> None:
        self._identity = identity
        self._url = url
        self._shared = shared

    @contextmanager
    def _open(self) -> Iterator[Connection]:
        if self._shared is not None and not (self._shared.closed or self._shared.invalidated):
            yield self._shared
            return
        with connected(self._url, "hk:ledger") as connection:
            yield connection

    def start(self, cutoffs: Mapping[str, datetime]) -> Started:
        """Begin the row, or find an earlier attempt's."""
        with self._open() as connection:
            ensure_ledger(connection)
            with guarded(connection, _LEDGER_PACE, any_plan=True):
                return start_run(connection, self._identity, cutoffs)

    def ended(self) -> RunResult | None:
        """Return how an earlier attempt of this run ended; None when none has."""
        with self._open() as connection, guarded(connection, _LEDGER_PACE, any_plan=True):
            if ledger_missing(connection):
                return None
            stored = result_of(connection, self._identity.id)
        return None if stored is None else RunResult.from_dict(stored)

    def end(self, result: RunResult) -> None:
        """Write how the run ended; the shared connection may be what it ended for."""
        try:
            self._write_end(result)
        except SQLAlchemyError:
            if self._shared is None:
                raise
            self._shared = None
            self._write_end(result)

    def _write_end(self, result: RunResult) -> None:
        with self._open() as connection, guarded(connection, _LEDGER_PACE, any_plan=True):
            end_run(connection, self._identity.id, result.as_dict(), result.total)

    def settle_abandoned(self, target: Connection) -> None:
        """End the rows of runs on this target that died, with what their windows committed.

        Call it under the target's lease: whoever still has an open row is gone.
        """
        with self._open() as connection:
            with guarded(connection, _LEDGER_PACE, any_plan=True):
                dead = abandoned_runs(connection, self._identity.target, self._identity.id)
            for run_id in dead:
                with guarded(target, _LEDGER_PACE, any_plan=True):
                    summary = summary_of(target, run_id)
                with guarded(connection, _LEDGER_PACE, any_plan=True):
                    close_abandoned(connection, run_id, summary.rows, summary.windows)


@dataclass(frozen=True)
class Objection:
    """Asks the lease and the operator's flags. Raises LeaseLost; returns why to leave, or None."""

    task: str
    run_id: str
    lease: Lease
    control: Control

    def __call__(self) -> StopReason | None:
        self.lease.check()
        return self.control.objection(self.task, self.run_id)
