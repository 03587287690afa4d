"""How a purge ends: totals summed over committed windows, sizes remembered, the result."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from housekeeping.engine.pacing import Clock
from housekeeping.engine.planning import Plan
from housekeeping.engine.purging import Tally
from housekeeping.engine.run import Request
from housekeeping.engine.throttling import Waited
from housekeeping.operations.partitions.result import ESTIMATED, partition_entries, partition_keys
from housekeeping.operations.partitions.steps import DETACHED
from housekeeping.policies.errors import LeaseLost, StoreUnreachable
from housekeeping.policies.purge import PurgePolicy
from housekeeping.policies.result import Phases, RunResult, StopReason
from housekeeping.stores.postgres.connection import connected, guarded
from housekeeping.stores.postgres.cutoffs import database_now
from housekeeping.stores.postgres.fencing import fenced
from housekeeping.stores.postgres.preflight import Target
from housekeeping.stores.postgres.split_ledger import (
    Split,
    close_split,
    find_split,
    prune_splits,
)
from housekeeping.stores.postgres.window_ledger import (
    INTO_PREFIX,
    Summary,
    WindowLedger,
    prune_windows,
    summary_of,
)

_log = logging.getLogger("housekeeping.purge")


@dataclass
class PurgeProgress:
    """How far a run has come; read when it ends, however it ends."""

    cutoffs: Mapping[str, datetime]
    plan: Plan | None = None
    ledger: WindowLedger | None = None
    tally: Tally | None = None
    warnings: tuple[str, ...] = ()
    """of work that came after the windows, and of what was left alone"""
    partitions: tuple[Mapping[str, Any], ...] = ()
    """what became of each partition; read when the run ends"""
    counted: bool = False
    """whether rows of whole partitions were counted, not estimated"""
    waited: Waited = field(default_factory=Waited)
    split: Split | None = None
    """how an earlier attempt cut the run into ranges that several workers share"""
    shared: bool = False
    """whether it is cut, by whichever attempt"""
    taken_up: bool = False
    """whether an earlier attempt of the run began; it may have cut it"""
    workers: int = 1
    """how many took part; told when it ends"""
    holds: tuple[str, ...] = ()
    """in force when it ended"""


@dataclass(frozen=True)
class Closing:
    """Makes the result of a run, however far it came."""

    policy: PurgePolicy
    request: Request
    clock: Clock
    begun: float
    """by the clock's monotonic time"""
    target: Target
    progress: PurgeProgress

    def finish(self, connection: Connection, reason: StopReason, error: str | None) -> RunResult:
        """Sum the committed windows up, on a new connection where the old one is gone."""
        try:
            return self._summed_up(connection, reason, error)
        except (SQLAlchemyError, LeaseLost):
            _log.warning("%s: the run's connection is gone; asking on a new one", self.policy.name)
        try:
            with connected(self.policy.database_url, "hk:ledger") as another:
                return self._summed_up(another, reason, error)
        except (SQLAlchemyError, LeaseLost, StoreUnreachable) as gone:
            told = f"{error or 'the run ended'}; its windows could not be summed up: {gone}"
            return self.result(StopReason.ERROR, error=told)

    def result(
        self,
        reason: StopReason,
        summary: Summary | None = None,
        error: str | None = None,
        oldest: float | None = None,
    ) -> RunResult:
        """Return the result; an error that did not fail the run becomes a warning."""
        tally, failed = self.progress.tally, reason is StopReason.ERROR
        warned = (error,) if error is not None and not failed else ()
        return RunResult(
            operation=self.policy.operation,
            policy=self.policy.name,
            run_id=str(self.request.run_id),
            stop_reason=reason,
            total_key=self.policy.total_key,
            total=summary.rows if summary else 0,
            details=self.details(summary.counts if summary else {}),
            cutoffs=self.progress.cutoffs,
            batches=summary.windows if summary else 0,
            seconds=self.clock.monotonic() - self.begun,
            phases=tally.phases if tally else Phases(),
            oldest_expired_age_seconds=oldest,
            left_behind=summary.left_behind if summary else 0,
            warnings=(
                *self.target.warnings,
                *_left_warning(summary),
                *self.progress.warnings,
                *self.progress.waited.warnings(),
                *warned,
            ),
            tables=(*self.progress.partitions, *_dated_tables(summary)),
            waits=self.progress.waited.as_dict(),
            holds=self.progress.holds,
            error=error if failed else None,
            workers=self.progress.workers,
        )

    def details(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Return counts under every key a result of this policy has; the keys never vary."""
        keys = [*self.policy.detail_keys, *(child.key for child in self.target.children)]
        keys += partition_keys(self.policy.partitions) if self.target.in_parts else ()
        return {key: int(counts.get(key, 0)) for key in dict.fromkeys(keys)}

    def _summed_up(
        self, connection: Connection, reason: StopReason, error: str | None
    ) -> RunResult:
        if self.progress.shared or self._was_shared(connection):
            # From here on no worker can commit another window, so the sums below are final.
            with fenced(connection, self.target.facts, self.policy.pace):
                self.progress.workers = close_split(connection, self.request.run_id)
        with guarded(connection, self.policy.pace, any_plan=True):
            summary = summary_of(connection, self.request.run_id)
            if self.progress.ledger is not None and self.progress.tally is not None:
                self.progress.ledger.remember_sizes(connection, self.progress.tally.sizes)
            if self.target.in_parts:
                self._read_partitions(connection, summary)
        self._prune(connection)
        done = reason is StopReason.EXHAUSTED and not summary.left_behind
        oldest = None if done else self._oldest(connection)
        return self.result(reason, summary, error, oldest)

    def _was_shared(self, connection: Connection) -> bool:
        """Whether an earlier attempt cut the run, and others may be at it still."""
        if not self.progress.taken_up:
            return False
        with guarded(connection, self.policy.pace, reading=True, any_plan=True):
            return find_split(connection, self.request.run_id) is not None

    def _read_partitions(self, connection: Connection, summary: Summary) -> None:
        done = "archived" if self.policy.archive else "deleted"
        entries = partition_entries(connection, self.request.run_id, done)
        self.progress.partitions = entries
        if summary.counts.get(DETACHED) and not self.progress.counted:
            self.progress.warnings += (ESTIMATED,)

    def _prune(self, connection: Connection) -> None:
        try:
            with guarded(connection, self.policy.pace, any_plan=True):
                prune_windows(connection)
                prune_splits(connection)
        except SQLAlchemyError as error:
            _log.warning("windows older than 90 days could not be forgotten yet: %s", error)

    def _oldest(self, connection: Connection) -> float | None:
        """Return the age of the oldest row still to go, where an index tells it at once."""
        ages = []
        for walk in self.progress.plan.served if self.progress.plan else ():
            try:
                with guarded(connection, self.policy.pace, reading=True):
                    now = database_now(connection)
                    oldest = walk.probe.oldest(connection, walk.predicate)
            except DBAPIError:
                return None  # a long way to the first such row; the run has more to do anyway
            if oldest is not None and (age := walk.age_type.seconds_before(oldest, now)):
                ages.append(age)
        return max(ages, default=None)


def _dated_tables(summary: Summary | None) -> tuple[dict[str, object], ...]:
    """Return what each dated table got, from the windows that moved it there."""
    counts = summary.counts if summary else {}
    return tuple(
        {"table": label.removeprefix(INTO_PREFIX), "done": "archived", "rows": counts[label]}
        for label in sorted(counts)
        if label.startswith(INTO_PREFIX)
    )


def _left_warning(summary: Summary | None) -> tuple[str, ...]:
    if summary is None or not summary.left_behind:
        return ()
    return (
        f"{summary.left_behind} expired rows stayed: another session holds them, or a constraint "
        "or trigger refuses; the ledger's windows say which",
    )
