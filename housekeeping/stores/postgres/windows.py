"""One window, one transaction: fence, rows, ledger, commit."""

import time
from collections import Counter
from dataclasses import dataclass, replace

from psycopg2 import sql
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from housekeeping.policies.errors import TableRewritten
from housekeeping.policies.purge import PurgePolicy
from housekeeping.stores.postgres.archive_tables import count_in
from housekeeping.stores.postgres.archiving import Archive, ArrivalsToCount, PeriodsMissed
from housekeeping.stores.postgres.conditions import Condition, condition_of
from housekeeping.stores.postgres.connection import guarded, set_guards
from housekeeping.stores.postgres.counting import held_in
from housekeeping.stores.postgres.deletion import Deletion
from housekeeping.stores.postgres.emptying import Emptied, Emptying, How, RowsRefused
from housekeeping.stores.postgres.hold_ledger import holds_now
from housekeeping.stores.postgres.overhead import Overhead
from housekeeping.stores.postgres.predicate import Predicate
from housekeeping.stores.postgres.preflight import Target
from housekeeping.stores.postgres.ranges import Range
from housekeeping.stores.postgres.shard_ledger import ShardLedger
from housekeeping.stores.postgres.slicing import Slicing
from housekeeping.stores.postgres.statement import Statement, execute, identifier
from housekeeping.stores.postgres.window_ledger import INTO_PREFIX, WindowLedger

# Learn a window's months, meet a trigger on a dated table, find a copy of its rows there, look a lost
# table up again.
_ARCHIVE_ATTEMPTS = 6

_CHECK_CONSTRAINTS = Statement("window.constraints", sql.SQL("SET CONSTRAINTS ALL IMMEDIATE"))
_FILENODE = Statement("window.filenode", sql.SQL("SELECT pg_relation_filenode(%(oid)s)::bigint"))


class FenceBusy(Exception):
    """Another session's batch on the table is under way."""


class HoldsChanged(Exception):
    """A hold was placed, released or changed since the run looked; nothing of the window is done."""


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
    rested_seconds: float = 0.0
    """small rests inside the transaction; not part of the two above"""
    overhead_seconds: float = 0.0
    """on the way and between statements, whatever the window holds; part of the three above"""

    @property
    def work(self) -> int:
        """Rows of all tables: what the time was spent on."""
        return sum(self.counts.values())


@dataclass(frozen=True)
class _Record:
    """What the ledger will say of a window."""

    number: int
    walk: str
    range: Range
    done_to: str | None


class WindowStore:
    """Deletes or moves, or in a dry run counts, the expired rows of one window."""

    def __init__(
        self,
        connection: Connection,
        target: Target,
        ledger: WindowLedger | ShardLedger | None,
        archive: Archive | None = None,
    ) -> None:
        self._connection = connection
        self._target = target
        self._ledger = ledger
        self._archive = archive
        self._policy: PurgePolicy = target.policy
        self._slicing = Slicing()
        self._overhead = Overhead.on(connection)

    def delete(
        self,
        number: int,
        walk: str,
        range_: Range,
        predicate: Predicate,
        how: How,
        *,
        done_to: str | None = None,
    ) -> WindowOutcome:
        """Take a window's expired rows and record it, in one transaction.

        `done_to`: where the walk will be once it is done.

        Raises FenceBusy, TooManyChildren, RowsRefused, LeaseLost, ShardTaken, and
        DBAPIError; then nothing has changed, but for dated tables that were made.
        """
        record = _Record(number, walk, range_, done_to)
        if self._archive is None:
            return self._in_transaction(record, predicate, how)
        for _ in range(_ARCHIVE_ATTEMPTS):
            try:
                outcome = self._in_transaction(record, predicate, how)
            except (PeriodsMissed, ArrivalsToCount, DBAPIError) as error:
                how = self._prepared(error, range_, predicate, how)
            else:
                self._archive.end_window()
                return outcome
        raise RowsRefused("its months' archive tables keep vanishing")

    def _prepared(self, error: Exception, range_: Range, predicate: Predicate, how: How) -> How:
        """Prepare for what kept a window from being archived; return how to do it again."""
        assert self._archive is not None
        if isinstance(error, PeriodsMissed):
            self._archive.learn(self._connection, range_, predicate)
            return how
        if isinstance(error, DBAPIError):
            if self._archive.clashes(error) and not how.replaying:
                return replace(how, replaying=True)
            if not self._archive.lost_table(error):
                raise error
            self._archive.forget()
        return how

    def _in_transaction(self, record: "_Record", predicate: Predicate, how: How) -> WindowOutcome:
        assert self._ledger is not None
        begun = time.perf_counter()
        self._overhead.begin()
        transaction = self._connection.begin()
        try:
            set_guards(self._connection, self._policy.pace, seqscan=False)
            if not self._ledger.enter(self._connection):
                raise FenceBusy
            # A statement of its own: one that began before the lock was ours would not see it.
            if holds_now(self._connection) != self._target.holds.version:
                raise HoldsChanged
            emptied = Emptying(
                self._connection,
                self._target,
                self._archive,
                record.range,
                predicate,
                how,
                self._slicing,
            ).empty()
            rows = sum(emptied.counts[reason] for reason in predicate.reasons)
            self._write(record, emptied, rows)
            self._conclude()
            deleted = time.perf_counter()
            transaction.commit()
        except BaseException:
            transaction.rollback()
            raise
        committed = time.perf_counter()
        return WindowOutcome(
            emptied.counts,
            rows,
            emptied.left_behind,
            emptied.unfinished,
            deleted - begun - emptied.rested,
            committed - deleted,
            emptied.rested,
            self._overhead.of(deleted - begun),
        )

    def _write(self, record: "_Record", emptied: Emptied, rows: int) -> None:
        assert self._ledger is not None
        count_in(self._connection, emptied.moved)
        into = {f"{INTO_PREFIX}{table}": count for table, count in emptied.moved.items()}
        self._ledger.record(
            self._connection,
            number=record.number,
            walk=record.walk,
            bounds=record.range.bounds(),
            counts=Counter({**emptied.counts, **into}),
            rows=rows,
            done_to=None if emptied.unfinished else record.done_to,
            left_behind=emptied.left_behind,
        )

    def count(self, range_: Range, predicate: Predicate, limit: int | None) -> WindowOutcome:
        """Count what `delete` would take: the same window, the same predicate, a reading transaction."""
        deletion = Deletion(self._target.facts, self._target.children, range_, predicate)
        begun = time.perf_counter()
        with guarded(self._connection, self._policy.pace, reading=True):
            found = execute(self._connection, deletion.count(), **deletion.values, limit=limit)
            counts = Counter({predicate.reasons[rule]: count for rule, count in found})
            rows = sum(counts.values())
            for child in self._target.children if rows else ():
                statement = deletion.count_doomed_children(child)
                along = execute(self._connection, statement, **deletion.values, limit=limit)
                counts[child.key] += int(along.scalar_one())
        return WindowOutcome(counts, rows, 0, False, time.perf_counter() - begun, 0.0)

    def count_held(self, range_: Range, predicate: Predicate) -> int:
        """Count a window's rows that have expired and stay for a hold."""
        if predicate.held is None:
            return 0
        with guarded(self._connection, self._policy.pace, reading=True):
            return held_in(self._connection, self._target.facts, range_, predicate)

    def record_passed(self, number: int, walk: str, range_: Range, error: str) -> None:
        """Record a row that refuses to go, so that the run can pass it and say so.

        Raises FenceBusy, LeaseLost and DBAPIError; then nothing is recorded.
        """
        assert self._ledger is not None
        with guarded(self._connection, self._policy.pace):
            if not self._ledger.enter(self._connection):
                raise FenceBusy
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

    def blocked(self) -> str | None:
        """Return the label of a table we write to that somebody has locked whole (CREATE INDEX, ALTER
        TABLE); None when nobody has.
        """
        keys = [child.foreign_key for child in self._target.children]
        names = [(self._target.facts.schema, self._target.facts.name)]
        for name in dict.fromkeys((*names, *((key.child_schema, key.child) for key in keys))):
            body = sql.SQL("LOCK TABLE {} IN ROW EXCLUSIVE MODE NOWAIT").format(identifier(*name))
            try:
                with guarded(self._connection, self._policy.pace):
                    execute(self._connection, Statement("purge.try_table", body))
            except DBAPIError as error:
                if condition_of(error) is Condition.CONTENDED:
                    return ".".join(name)
                raise
        return None
