"""Detached partitions: finalize what was cut short, drop what is past its grace."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection

from housekeeping.operations.partition_steps import DROPPED, NotDone, Steps
from housekeeping.policies.result import StopReason
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
    own_foreign_keys,
)
from housekeeping.stores.postgres.held_tables import held_whole

Export = Callable[[Connection, Detached], None]
"""Takes a detached table's rows elsewhere before it is dropped; raises to keep the table."""

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
    export: Export | None = None

    def run(self) -> StopReason | None:
        """Settle what is open, then drop what is due."""
        return self._settle() or self._drop_due()

    def _settle(self) -> StopReason | None:
        steps = self.steps
        for detached in self.steps.seen():
            if (reason := steps.reason_to_stop()) is not None:
                return reason
            if detached.fate is Fate.PENDING:
                steps.attempt(detached.label, detached.rows, partial(self._finalize, detached))
            elif detached.fate is Fate.UNCONFIRMED:
                confirm = partial(steps.confirm, detached)
                steps.attempt(detached.label, detached.rows, partial(steps.patiently, confirm))
            elif detached.fate in _GIVEN_UP:
                steps.attempt(detached.label, 0, partial(self._give_up, detached))
        return None

    def _give_up(self, detached: Detached) -> None:
        state, warning = _GIVEN_UP[detached.fate]
        self.steps.settle(detached, state)
        if warning is not None:
            self.steps.warnings.append(warning.format(detached.label))

    def _finalize(self, detached: Detached) -> None:
        steps, policy = self.steps, self.steps.policy
        gone, begun = steps.gone(detached.rows), time.perf_counter()
        patience = policy.pace.lock_timeout.total_seconds()
        with (
            BlockWatch(policy.database_url, steps.connection, patience, steps.objection),
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
            if (reason := self.steps.reason_to_stop()) is not None:
                return reason
            drop = partial(self._drop, detached)
            if (why := self.steps.attempt(detached.label, detached.rows, drop)) is not None:
                with self.steps.writing():
                    note_error(self.steps.connection, detached.id, why)
        return None

    def _drop(self, detached: Detached) -> None:
        steps = self.steps
        if self.export is not None:
            self.export(steps.connection, detached)
        with guarded(steps.connection, steps.policy.pace, reading=True, any_plan=True):
            keys = own_foreign_keys(steps.connection, detached.oid)
        for key in keys:
            steps.patiently(partial(self._drop_foreign_key, key))
        steps.patiently(partial(self._drop_table, detached))

    def _drop_foreign_key(self, key: tuple[str, str, str]) -> None:
        with self.steps.writing():
            drop_foreign_key(self.steps.connection, key)

    def _drop_table(self, detached: Detached) -> None:
        steps, counts, begun = self.steps, Counter({DROPPED: 1}), time.perf_counter()
        with dropping(steps.connection, steps.policy.pace):
            steps.fence()
            (now,) = steps.look(detached.id)  # somebody may have thought better of it meanwhile
            if now.fate is not Fate.DUE:
                raise PartitionChanged(table=detached.label)
            held = held_whole(steps.connection, steps.policy, detached.oid, [steps.ledger.oid])
            if held is not None:
                raise NotDone(held)
            drop_detached(steps.connection, detached)
            record_drop(steps.connection, detached.id, steps.ledger.run_id)
            steps.record(detached.label, detached.bounds, counts, 0)
        steps.count(counts, 0, time.perf_counter() - begun)
