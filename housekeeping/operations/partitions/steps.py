"""One step on a whole partition: tried patiently, fenced, recorded in the ledger, counted."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from housekeeping.engine.outcomes import ConnectionLost
from housekeeping.engine.pacing import Clock, Rest
from housekeeping.engine.partition_planning import WholePartition
from housekeeping.engine.purging import Report, Tally
from housekeeping.engine.throttling import Throttle
from housekeeping.policies.errors import HousekeepingError, NobodyWatches, TableBlocked
from housekeeping.policies.purge import PurgePolicy
from housekeeping.policies.result import StopReason
from housekeeping.stores.postgres.conditions import Condition, condition_of, sentence
from housekeeping.stores.postgres.connection import guarded
from housekeeping.stores.postgres.counting import rows_up_to
from housekeeping.stores.postgres.detached_ledger import (
    Detached,
    confirm_detached,
    open_partitions,
    settle_detached,
)
from housekeeping.stores.postgres.detaching import PartitionChanged, in_the_way
from housekeeping.stores.postgres.hold_ledger import holds_now, share_holds
from housekeeping.stores.postgres.preflight import Target
from housekeeping.stores.postgres.rewalking import step_done
from housekeeping.stores.postgres.window_ledger import WindowLedger, try_fence
from housekeeping.stores.postgres.windows import FenceBusy, HoldsChanged, WindowOutcome

WALK = "partitions"
LOCKED = "locked"
"""the walk of a leaf's window that says how many of its rows nobody could reach"""
DETACHED, DROPPED = "partitions_detached", "partitions_dropped"
EXPORTED = "partitions_exported"
_ALL = 2**62  # rows; a bigint of PostgreSQL
_ATTEMPTS = 5
_FIRST_PAUSE_SECONDS = 0.2  # between two attempts others go first; it doubles
Made = TypeVar("Made")


class NotDone(Exception):
    """It could not be done this time; says why."""


class Kept(Exception):
    """A hold keeps it, and says so: nothing that should have been done was left undone."""


@dataclass
class Steps:
    """Does what the retirement of one table's partitions consists of."""

    connection: Connection
    policy: PurgePolicy
    ledger: WindowLedger
    tally: Tally
    report: Report
    clock: Clock
    rest: Rest
    throttle: Throttle
    reason_to_stop: Callable[[], StopReason | None]
    holds_version: str
    """of the holds the run knows"""
    counting: bool = False
    """a limit is on the run, which the planner's estimates must not use up"""
    resumed: bool = False
    """an earlier attempt of the run may have left what is done now"""
    warnings: list[str] = field(default_factory=list)
    leaving: StopReason | None = None
    """why the run ends with a step that was not done"""
    _attempts: int = _ATTEMPTS

    def ready(self) -> StopReason | None:
        """Wait until the database is well enough for a step; return why to end instead."""
        if (reason := self.reason_to_stop()) is not None:
            return reason
        begun = time.perf_counter()
        reason = self.throttle.hold()
        self.tally.phases.wait += time.perf_counter() - begun
        return reason

    def go_on(self) -> None:
        """Between two parts of a step: wait as `ready` does. Raises NotDone where the run has to end."""
        if (reason := self.ready()) is not None:
            self.leaving = reason
            raise NotDone("the run had to end before it")

    def heed(self, late: str = "the run's time was over") -> None:
        """Raise NotDone where the run has to leave. `late`: what to say where its time is over."""
        if (reason := self.reason_to_stop()) is not None:
            told = "the run was told to leave"
            raise NotDone(late if reason is StopReason.TIME_BUDGET else told)

    def attempt(self, label: str, rows: int, step: Callable[[], None]) -> str | None:
        """Do a step; where it can't be done, say why, in the ledger and to the reader."""
        try:
            with self.throttle.window():
                step()
        except Kept as kept:
            return self._told(label, 0, str(kept))
        except (PartitionChanged, NotDone, NobodyWatches) as error:
            return self.left(label, rows, str(error))
        except FenceBusy:
            return self.left(label, rows, "another session keeps deleting from the table")
        except DBAPIError as error:
            if condition_of(error) is Condition.CONNECTION_LOST:
                raise ConnectionLost(sentence(error)) from error
            return self.left(label, rows, self.throttle.cause(error))
        if self.resumed:
            with guarded(self.connection, self.policy.pace, any_plan=True):
                step_done(self.connection, self.ledger.run_id, label, WALK)
        return None

    def left(self, label: str, rows: int, why: str) -> str:
        """Tell that a partition stays as it is for now, and why; returns that."""
        self._attempts = 1  # whoever is in the way of one is in the way of others
        told = self._told(label, max(1, rows), why)
        # What cut it short ends the run, also where this was its last step.
        self.leaving = self.leaving or self.reason_to_stop()
        return told

    def passed_over(self, leaf: Target, rows: int, error: Exception) -> None:
        """Tell that rows of a leaf stay, as somebody has locked it. Raises any other error."""
        locked = isinstance(error, DBAPIError) and condition_of(error) is Condition.CONTENDED
        if not locked and not isinstance(error, TableBlocked):
            raise error
        with guarded(self.connection, self.policy.pace, reading=True, any_plan=True):
            who = in_the_way(self.connection, [leaf.facts.oid])
        why = "its rows stay for now: another session has locked it"
        # A walk of its own: an attempt that goes on here forgets it, as it walks the leaf again.
        self._told(leaf.facts.label, max(1, rows), f"{why} ({who})" if who else why, walk=LOCKED)

    def _told(self, label: str, left: int, why: str, walk: str = WALK) -> str:
        with guarded(self.connection, self.policy.pace, any_plan=True):
            self.record(label, None, Counter(), 0, left=left, error=why, walk=walk)
        self.tally.number += 1
        self.tally.left_behind += left
        self.warnings.append(f"{label}: {why}")
        return why

    def patiently(self, step: Callable[[], Made], heed: Callable[[], None] | None = None) -> Made:
        """Try a few times where somebody is in the way, ever longer apart; return what it made.

        `heed`: called in place of ours between two attempts.
        """
        heed = heed or self.heed
        pause, left = _FIRST_PAUSE_SECONDS, self._attempts
        while True:
            left -= 1
            try:
                return step()
            except FenceBusy:
                if not left:
                    raise
            except DBAPIError as error:
                if condition_of(error) not in (Condition.CONTENDED, Condition.TOO_SLOW):
                    raise
                if not left:
                    heed()  # for which a watch may have cancelled it
                    raise
            heed()
            self.tally.phases.wait += self.rest.pause(pause)
            pause *= 2

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Open a transaction that is alone on the table."""
        with guarded(self.connection, self.policy.pace, any_plan=True):
            self.fence()
            yield

    @contextmanager
    def recording(self, label: str, bounds: str, counts: Counter[str], rows: int) -> Iterator[None]:
        """Do a block and write its window in one transaction; count it once that is committed."""
        begun = time.perf_counter()
        with self.writing():
            yield
            self.record(label, bounds, counts, rows)
        self.count(counts, rows, time.perf_counter() - begun)

    @contextmanager
    def unheld(self) -> Iterator[None]:
        """Open a transaction beside which no hold is placed, for a step on another connection.

        Raises HoldsChanged where one was placed before.
        """
        with guarded(self.connection, self.policy.pace, any_plan=True):
            share_holds(self.connection)
            if holds_now(self.connection) != self.holds_version:
                raise HoldsChanged
            yield

    def fence(self) -> None:
        """Raise FenceBusy where another batch is under way, HoldsChanged where holds have."""
        if not try_fence(self.connection, self.ledger.oid):
            raise FenceBusy
        if holds_now(self.connection) != self.holds_version:
            raise HoldsChanged

    def record(
        self,
        label: str,
        bounds: str | None,
        counts: Counter[str],
        rows: int,
        left: int = 0,
        error: str | None = None,
        walk: str = WALK,
    ) -> None:
        """Write a window in the transaction that is open."""
        replace(self.ledger, part=label).record(
            self.connection,
            number=self.tally.number + 1,
            walk=walk,
            bounds=(None, bounds),
            counts=counts,
            rows=rows,
            left_behind=left,
            error=error,
        )

    def count(self, counts: Counter[str], rows: int, seconds: float) -> None:
        """Count a window that was committed."""
        self.tally.number += 1
        self.tally.rows += rows
        self.tally.counts.update(counts)
        self.tally.phases.delete += seconds
        outcome = WindowOutcome(counts, rows, 0, False, seconds, 0.0)
        self.report.committed(outcome, self.tally, None)

    def counted(self, whole: WholePartition) -> WholePartition:
        """Return a partition with its rows counted, where that matters."""
        if not self.counting:
            return whole
        rows = rows_up_to(self.connection, whole.partition, _ALL)
        if rows is not None:
            return replace(whole, rows=rows)
        label = whole.partition.label
        self.warnings.append(
            f"{label}: its rows are the planner's estimate, to count took too long"
        )
        return whole

    def gone(self, rows: int) -> Counter[str]:
        """Return what a detached partition counts for."""
        counts = Counter({DETACHED: 1})
        if self.policy.takes_every_old_row:  # else it was another policy by now that detached it
            counts[self.policy.rules[0].reason] = rows
        return counts

    def look(self, only: int | None = None) -> list[Detached]:
        """Return what the ledger and the catalog say of detached partitions."""
        grace = self.policy.partitions.grace
        return open_partitions(self.connection, self.ledger.relation, grace, only)

    def seen(self) -> list[Detached]:
        """Look, in a transaction of its own."""
        with guarded(self.connection, self.policy.pace, reading=True, any_plan=True):
            return self.look()

    def confirmed(self, id_: int) -> None:
        """Write down that a partition is detached, and from when on it may be dropped."""
        care = self.policy.partitions
        grace = care.grace if care.then == "drop" else None
        confirm_detached(self.connection, id_, self.ledger.run_id, grace)

    def confirm(self, detached: Detached) -> None:
        """Record what was detached before it could be written down."""
        with self.recording(
            detached.label, detached.bounds, self.gone(detached.rows), detached.rows
        ):
            self.confirmed(detached.id)

    def settle(self, detached: Detached, state: str) -> None:
        """Give a partition up."""
        with self.writing():
            settle_detached(self.connection, detached.id, state)

    def objection(self) -> object:
        """Return why to leave, for a thread that watches and must not raise."""
        try:
            return self.reason_to_stop()
        except HousekeepingError as lost:
            return lost
