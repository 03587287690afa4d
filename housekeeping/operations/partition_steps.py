"""One step on a whole partition: tried patiently, fenced, recorded in the ledger, counted."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from housekeeping.engine.outcomes import ConnectionLost
from housekeeping.engine.pacing import Rest
from housekeeping.engine.purging import Report, Tally
from housekeeping.policies.errors import HousekeepingError
from housekeeping.policies.purge import PurgePolicy
from housekeeping.policies.result import StopReason
from housekeeping.stores.postgres.conditions import Condition, condition_of, sentence
from housekeeping.stores.postgres.connection import guarded
from housekeeping.stores.postgres.detached_ledger import (
    Detached,
    confirm_detached,
    open_partitions,
    settle_detached,
)
from housekeeping.stores.postgres.detaching import PartitionChanged
from housekeeping.stores.postgres.hold_ledger import holds_now
from housekeeping.stores.postgres.window_ledger import WindowLedger, try_fence
from housekeeping.stores.postgres.windows import FenceBusy, HoldsChanged, WindowOutcome

WALK = "partitions"
DETACHED, DROPPED = "partitions_detached", "partitions_dropped"
_ATTEMPTS = 5
_FIRST_PAUSE_SECONDS = 0.2  # between two attempts others go first; it doubles


class NotDone(Exception):
    """It could not be done this time; says why."""


@dataclass
class Steps:
    """Does what the retirement of one table's partitions consists of."""

    connection: Connection
    policy: PurgePolicy
    ledger: WindowLedger
    tally: Tally
    report: Report
    rest: Rest
    reason_to_stop: Callable[[], StopReason | None]
    holds_version: str
    """of the holds the run knows"""
    warnings: list[str] = field(default_factory=list)
    _attempts: int = _ATTEMPTS

    def attempt(self, label: str, rows: int, step: Callable[[], None]) -> str | None:
        """Do a step; where it can't be done, say why, in the ledger and to the reader."""
        try:
            step()
        except (PartitionChanged, NotDone) as error:
            return self.left(label, rows, str(error))
        except FenceBusy:
            return self.left(label, rows, "another session keeps deleting from the table")
        except DBAPIError as error:
            if condition_of(error) is Condition.CONNECTION_LOST:
                raise ConnectionLost(sentence(error)) from error
            return self.left(label, rows, sentence(error))
        return None

    def left(self, label: str, rows: int, why: str) -> str:
        """Tell that a partition stays as it is for now, and why; returns that."""
        self._attempts = 1  # whoever is in the way of one is in the way of others
        left = max(1, rows)
        with guarded(self.connection, self.policy.pace, any_plan=True):
            self.record(label, None, Counter(), 0, left=left, error=why)
        self.tally.number += 1
        self.tally.left_behind += left
        self.warnings.append(f"{label}: {why}")
        return why

    def patiently(self, step: Callable[[], None]) -> None:
        """Try a few times where somebody is in the way, ever longer apart."""
        pause = _FIRST_PAUSE_SECONDS
        for left in range(self._attempts - 1, -1, -1):
            try:
                return step()
            except FenceBusy:
                if not left:
                    raise
            except DBAPIError as error:
                passing = condition_of(error) in (Condition.CONTENDED, Condition.TOO_SLOW)
                if not passing or not left:
                    raise
            if self.reason_to_stop() is not None:
                raise NotDone("the run was told to leave")
            self.tally.phases.wait += self.rest.pause(pause)
            pause *= 2
        return None

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
    ) -> None:
        """Write a window in the transaction that is open."""
        replace(self.ledger, part=label).record(
            self.connection,
            number=self.tally.number + 1,
            walk=WALK,
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
