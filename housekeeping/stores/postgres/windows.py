"""One window, one transaction: fence, rows, ledger, commit."""

import time
from collections import Counter
from dataclasses import dataclass
from enum import Enum, auto

from psycopg2 import sql
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from housekeeping.policies.errors import TableRewritten
from housekeeping.policies.purge import PurgePolicy
from housekeeping.stores.postgres.conditions import Condition, condition_of
from housekeeping.stores.postgres.connection import guarded, set_guards
from housekeeping.stores.postgres.deletion import CHILD_PREFIX, Deletion
from housekeeping.stores.postgres.predicate import Predicate
from housekeeping.stores.postgres.preflight import Target
from housekeeping.stores.postgres.ranges import Range
from housekeeping.stores.postgres.relatives import Child
from housekeeping.stores.postgres.statement import Statement, execute, identifier
from housekeeping.stores.postgres.window_ledger import WindowLedger, try_fence

CHILD_ROWS = 20_000  # of one child table in one transaction; about 100 ms of indexed deletes


_CHECK_CONSTRAINTS = Statement("window.constraints", sql.SQL("SET CONSTRAINTS ALL IMMEDIATE"))
_FILENODE = Statement("window.filenode", sql.SQL("SELECT pg_relation_filenode(%(oid)s)::bigint"))


class Held(Enum):
    """What to do about a row another session holds."""

    WAIT = auto()
    """up to lock_timeout, then the window fails"""
    PASS = auto()
    """take the others and count what stays"""


class FenceBusy(Exception):
    """Another session's batch on the table is under way."""


class TooManyChildren(Exception):
    """The window's rows own more child rows than one transaction should delete."""


@dataclass(frozen=True)
class WindowOutcome:
    """What one committed window did."""

    counts: Counter[str]
    """rows by reason, and children by their key"""
    rows: int
    """of the purged table"""
    left_behind: int
    """expired rows another session holds"""
    unfinished: bool
    """only children went; the same window has to be done again"""
    delete_seconds: float
    commit_seconds: float

    @property
    def work(self) -> int:
        """Rows of all tables: what the time was spent on."""
        return sum(self.counts.values())


class WindowStore:
    """Deletes, or in a dry run counts, the expired rows of one window."""

    def __init__(self, connection: Connection, target: Target, ledger: WindowLedger | None) -> None:
        self._connection = connection
        self._target = target
        self._ledger = ledger
        self._policy: PurgePolicy = target.policy
        self._pins_always = bool(target.children or target.keepers)

    def delete(
        self,
        number: int,
        walk: str,
        range_: Range,
        predicate: Predicate,
        held: Held = Held.WAIT,
        limit: int | None = None,
        *,
        drain: bool = False,
        done_to: str | None = None,
    ) -> WindowOutcome:
        """Delete a window and record it, in one transaction.

        `limit`: at most so many rows. `drain`: the window can't be divided, so its children may go
        in several transactions ahead of it. `done_to`: where the walk will be once it is done.

        Raises FenceBusy, TooManyChildren, LeaseLost, and DBAPIError; then nothing has changed.
        """
        assert self._ledger is not None
        deletion = Deletion(self._target.facts, self._target.children, range_, predicate)
        begun = time.perf_counter()
        transaction = self._connection.begin()
        try:
            set_guards(self._connection, self._policy.pace, seqscan=False)
            if not try_fence(self._connection, self._target.facts.oid):
                raise FenceBusy
            if self._pins_always or held is Held.PASS or limit is not None:
                outcome = self._delete_pinned(deletion, predicate, held, limit, drain=drain)
            else:
                outcome = self._delete_directly(deletion, predicate)
            counts, left, unfinished = outcome
            rows = sum(counts[reason] for reason in predicate.reasons)
            self._ledger.record(
                self._connection,
                number=number,
                walk=walk,
                bounds=range_.bounds(),
                counts=counts,
                rows=rows,
                done_to=None if unfinished else done_to,
                left_behind=left,
            )
            self._conclude()
            deleted = time.perf_counter()
            transaction.commit()
        except BaseException:
            transaction.rollback()
            raise
        committed = time.perf_counter()
        return WindowOutcome(counts, rows, left, unfinished, deleted - begun, committed - deleted)

    def count(self, range_: Range, predicate: Predicate, limit: int | None) -> WindowOutcome:
        """Count what `delete` would take: the same window, the same predicate, a reading transaction."""
        deletion = Deletion(self._target.facts, self._target.children, range_, predicate)
        begun = time.perf_counter()
        with guarded(self._connection, self._policy.pace, reading=True):
            counts = self._by_reason(deletion, predicate, limit)
            rows = sum(counts.values())
            for child in self._target.children if rows else ():
                statement = deletion.count_doomed_children(child)
                found = execute(self._connection, statement, **deletion.values, limit=limit)
                counts[child.key] += int(found.scalar_one())
        return WindowOutcome(counts, rows, 0, False, time.perf_counter() - begun, 0.0)

    def record_passed(self, number: int, walk: str, range_: Range, error: str) -> None:
        """Record a row that refuses to go, so that the run can pass it and say so."""
        assert self._ledger is not None
        with guarded(self._connection, self._policy.pace):
            self._ledger.record(
                self._connection,
                number=number,
                walk=walk,
                bounds=range_.bounds(),
                counts=Counter(),
                rows=0,
                left_behind=1,
                error=error,
            )

    def _conclude(self) -> None:
        """Find out what COMMIT would say while the window can still be divided.

        Deferred constraints are checked now. The lock this transaction has keeps the table from
        being rewritten; had it been since the plan was made, its rows would lie elsewhere.
        """
        facts = self._target.facts
        execute(self._connection, _CHECK_CONSTRAINTS)
        if execute(self._connection, _FILENODE, oid=facts.oid).scalar_one() != facts.filenode:
            raise TableRewritten(table=facts.label)

    def blocked(self) -> bool:
        """Say whether somebody holds a lock on a whole table we write to: CREATE INDEX, ALTER."""
        tables = [self._target.facts.identifier]
        tables += [
            identifier(child.foreign_key.child_schema, child.foreign_key.child)
            for child in self._target.children
        ]
        body = sql.SQL("LOCK TABLE {} IN ROW EXCLUSIVE MODE NOWAIT").format(
            sql.SQL(", ").join(tables)
        )
        try:
            with guarded(self._connection, self._policy.pace):
                execute(self._connection, Statement("purge.try_table", body))
        except DBAPIError as error:
            if condition_of(error) is Condition.CONTENDED:
                return True
            raise
        return False

    def _delete_directly(
        self, deletion: Deletion, predicate: Predicate
    ) -> tuple[Counter[str], int, bool]:
        result = execute(self._connection, deletion.direct(), **deletion.values)
        if result.returns_rows:
            counts = Counter({predicate.reasons[rule]: count for rule, count in result})
        else:
            counts = Counter({predicate.reasons[0]: result.rowcount})
        return counts, self._stayed(deletion, predicate, Held.WAIT), False

    def _delete_pinned(
        self,
        deletion: Deletion,
        predicate: Predicate,
        held: Held,
        limit: int | None,
        *,
        drain: bool,
    ) -> tuple[Counter[str], int, bool]:
        skip_locked = held is Held.PASS
        pin = deletion.pin(skip_locked=skip_locked)
        pinned = execute(self._connection, pin, **deletion.values, limit=limit).scalar_one()
        counts: Counter[str] = Counter()
        if pinned:
            for child in self._target.children:
                if child.keeps:
                    pin = deletion.pin_children(child, skip_locked=skip_locked)
                    execute(self._connection, pin, **deletion.values)
            if drained := self._bound_children(deletion, drain=drain):
                return drained, 0, True
            for label, count in execute(
                self._connection, deletion.delete_pinned(), **deletion.values
            ):
                counts[self._key(label, predicate)] += count
        gone = sum(counts[reason] for reason in predicate.reasons)
        if gone == limit:
            return counts, 0, False
        # Rows that were pinned and stayed: something keeps them now, or an update moved them away.
        moved = pinned - gone if not self._target.keepers else 0
        return counts, max(moved, self._stayed(deletion, predicate, held)), False

    def _stayed(self, deletion: Deletion, predicate: Predicate, held: Held) -> int:
        """Count expired rows that are still there: somebody holds them, or a trigger keeps them."""
        if held is Held.WAIT and not self._target.facts.delete_triggers:
            return 0
        return sum(self._by_reason(deletion, predicate, None).values())

    def _bound_children(self, deletion: Deletion, *, drain: bool) -> Counter[str] | None:
        """Keep the children of a window within bounds: by dividing it, or by draining them."""
        drained: Counter[str] = Counter()
        for child in self._target.children:
            count = deletion.count_children(child)
            found = execute(self._connection, count, **deletion.values, children=CHILD_ROWS + 1)
            if int(found.scalar_one()) <= CHILD_ROWS:
                continue
            if not drain:
                raise TooManyChildren
            if child.keeps:
                continue  # its rows decide about the parent: they go together with it or not at all
            drained[child.key] += self._drain(deletion, child)
        return drained or None

    def _drain(self, deletion: Deletion, child: Child) -> int:
        statement = deletion.drain_children(child)
        result = execute(self._connection, statement, **deletion.values, children=CHILD_ROWS)
        return int(result.rowcount)

    def _by_reason(
        self, deletion: Deletion, predicate: Predicate, limit: int | None
    ) -> Counter[str]:
        found = execute(self._connection, deletion.count(), **deletion.values, limit=limit)
        return Counter({predicate.reasons[rule]: count for rule, count in found})

    def _key(self, label: str, predicate: Predicate) -> str:
        if label.startswith(CHILD_PREFIX):
            return self._target.children[int(label.removeprefix(CHILD_PREFIX))].key
        return predicate.reasons[int(label)]
