"""Detached partitions: finalize what was cut short, export and drop what is past its grace."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from housekeeping.operations.partitions.exporting import PartitionExport, left_to_another
from housekeeping.operations.partitions.steps import DROPPED, Kept, NotDone, Steps
from housekeeping.policies.result import StopReason
from housekeeping.stores.postgres.archives.dropping import counting
from housekeeping.stores.postgres.archives.rows import Fingerprint
from housekeeping.stores.postgres.archives.unchanged import CHANGED, counted, lock_against_writers
from housekeeping.stores.postgres.blocking import BlockWatch
from housekeeping.stores.postgres.connection import guarded
from housekeeping.stores.postgres.detached_ledger import Detached, Fate, note_error, record_drop
from housekeeping.stores.postgres.detaching import (
    PartitionChanged,
    drop_detached,
    drop_foreign_key,
    dropping,
    finalize,
    finalizing,
    lock_detached,
    own_foreign_keys,
)
from housekeeping.stores.postgres.held_tables import held_whole

_PATIENCE = timedelta(seconds=1)  # as long as somebody who writes to a table waits for our counting
_GIVEN_UP = {
    Fate.UNDONE: ("withdrawn", None),
    Fate.GONE: ("gone", None),
    Fate.RETURNED: ("returned", "{} was attached again: it is no longer ours to drop"),
    Fate.CHANGED: ("changed", "{} was renamed or moved: it is no longer ours to drop"),
}


@dataclass(frozen=True)
class Retirement:
    """Looks after partitions that earlier runs took out of a table."""

    steps: Steps
    export: PartitionExport | None = None
    """takes a table's rows elsewhere before it is dropped"""

    def run(self) -> StopReason | None:
        """Settle what is open, then drop what is due."""
        return self._settle() or self._drop_due()

    def _settle(self) -> StopReason | None:
        for detached in self.steps.seen():
            settle = self._settling(detached)
            if settle is None:
                continue
            # Only now: where nothing is to be settled, nobody waits for the database to be well.
            if (reason := self.steps.ready()) is not None:
                return reason
            given_up = detached.fate in _GIVEN_UP
            self.steps.attempt(detached.label, 0 if given_up else detached.rows, settle)
            if self.steps.leaving is not None:
                return self.steps.leaving
        return None

    def _settling(self, detached: Detached) -> Callable[[], None] | None:
        if detached.fate is Fate.PENDING:
            return partial(self._finalize, detached)
        if detached.fate is Fate.UNCONFIRMED:
            return partial(self.steps.patiently, partial(self.steps.confirm, detached))
        return partial(self._give_up, detached) if detached.fate in _GIVEN_UP else None

    def _give_up(self, detached: Detached) -> None:
        state, warning = _GIVEN_UP[detached.fate]
        self.steps.settle(detached, state)
        if warning is not None:
            self.steps.warnings.append(warning.format(detached.label))

    def _finalize(self, detached: Detached) -> None:
        steps, policy = self.steps, self.steps.policy
        gone, begun = steps.gone(detached.rows), time.perf_counter()
        patience = policy.pace.lock_timeout
        watch = BlockWatch(policy.database_url, steps.connection, patience, steps.objection)
        with (
            watch,
            watch.window(),
            finalizing(steps.connection, policy.pace),
        ):
            steps.fence()
            finalize(steps.connection, detached)
            steps.confirmed(detached.id)
            steps.record(detached.label, detached.bounds, gone, detached.rows)
        steps.count(gone, detached.rows, time.perf_counter() - begun)

    def _drop_due(self) -> StopReason | None:
        if self.steps.policy.partitions.then == "keep":
            return None
        for detached in self.steps.seen():
            if detached.fate is not Fate.DUE:
                continue
            if (why := left_to_another(detached, self.steps.policy)) is not None:
                self.steps.warnings.append(f"{detached.label}: {why}")
                continue
            if (reason := self.steps.ready()) is not None:
                return reason
            drop = partial(self._drop, detached)
            if (why := self.steps.attempt(detached.label, detached.rows, drop)) is not None:
                self._note(detached, why)
            if self.steps.leaving is not None:
                return self.steps.leaving
        return None

    def _note(self, detached: Detached, why: str) -> None:
        """Write down why it stays; without the fence, which may be what it stays for."""
        steps = self.steps
        with guarded(steps.connection, steps.policy.pace, any_plan=True):
            note_error(steps.connection, detached.id, why)

    def _drop(self, detached: Detached) -> None:
        steps = self.steps
        expected = None
        if self.export is not None:
            with guarded(
                steps.connection, counting(steps.policy.pace), reading=True, any_plan=True
            ):
                self._require_due(detached)  # what a hold keeps need not be exported
            expected = self.export.make(detached)
            steps.go_on()  # it may have taken an hour
        with guarded(steps.connection, steps.policy.pace, reading=True, any_plan=True):
            keys = own_foreign_keys(steps.connection, detached.oid)
        for key in keys:
            steps.patiently(partial(self._drop_foreign_key, detached, key))
        steps.patiently(partial(self._drop_table, detached, expected))

    def _drop_foreign_key(self, detached: Detached, key: tuple[str, str, str]) -> None:
        with dropping(self.steps.connection, self.steps.policy.pace):
            self.steps.fence()
            self._require_due(detached)
            drop_foreign_key(self.steps.connection, key)

    def _drop_table(self, detached: Detached, expected: Fingerprint | None) -> None:
        """Drop it. `expected`: what its export holds; anything else in it now keeps it."""
        steps, counts, begun = self.steps, Counter({DROPPED: 1}), time.perf_counter()
        with self._dropping(patient=expected is not None):
            steps.fence()
            self._require_due(detached)
            if expected is not None:
                self._require_same(detached, expected)
            lock_detached(steps.connection, detached)
            self._require_unwanted(detached)  # while we waited, somebody may have taken it back
            drop_detached(steps.connection, detached)
            record_drop(steps.connection, detached.id, steps.ledger.run_id)
            steps.record(detached.label, detached.bounds, counts, 0)
        steps.count(counts, 0, time.perf_counter() - begun)

    @contextmanager
    def _dropping(self, *, patient: bool) -> Iterator[None]:
        """Open a transaction for a drop; where rows are counted in it, whoever waits is let through."""
        steps, policy = self.steps, self.steps.policy
        if not patient:
            with dropping(steps.connection, policy.pace):
                yield
            return
        watch = BlockWatch(policy.database_url, steps.connection, _PATIENCE, steps.objection)
        with (
            watch,
            watch.window(),
            guarded(steps.connection, counting(policy.pace), any_plan=True),
        ):
            yield

    def _require_same(self, detached: Detached, expected: Fingerprint) -> None:
        """Raise NotDone unless it holds what was exported; from here on nobody can change it."""
        connection = self.steps.connection
        lock_against_writers(connection, detached.identifier)
        if counted(connection, detached.identifier, hashed=True) != expected:
            raise NotDone(CHANGED)

    def _require_due(self, detached: Detached) -> None:
        """Raise what keeps a table: somebody has thought better of it meanwhile, or a hold."""
        self._require_unwanted(detached)
        steps = self.steps
        held = held_whole(steps.connection, steps.policy, detached.oid, [steps.ledger.oid])
        if held is not None:
            raise Kept(held)

    def _require_unwanted(self, detached: Detached) -> None:
        now = self.steps.look(detached.id)  # nothing where somebody has settled it by hand
        if [each.fate for each in now] != [Fate.DUE]:
            raise PartitionChanged(table=detached.label)
