"""The loop that puts rows back: window by window, each halved until only what refuses is left."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from housekeeping.engine.pacing import Budget, Clock, Rest
from housekeeping.engine.reporting import RunReport
from housekeeping.engine.sizing import WindowSize
from housekeeping.engine.throttling import Throttle, Waited
from housekeeping.operations.archives.restore_parts import Part
from housekeeping.operations.archives.standing_back import StandingBack
from housekeeping.policies.archives import RestorePolicy
from housekeeping.policies.errors import LeaseLost
from housekeeping.policies.events import EventStream, WindowCommitted
from housekeeping.policies.result import StopReason
from housekeeping.stores.files.row_text import bytes_in
from housekeeping.stores.postgres.archives.known import ArchivedTable
from housekeeping.stores.postgres.archives.putting_back import (
    ALREADY_THERE,
    KEY_TAKEN,
    REFUSED,
    RESTORED,
    FenceTaken,
    NotAllTaken,
    PuttingBack,
)
from housekeeping.stores.postgres.archives.rows import TextRow
from housekeeping.stores.postgres.catalog import describe_table
from housekeeping.stores.postgres.conditions import Condition, condition_of
from housekeeping.stores.postgres.connection import guarded
from housekeeping.stores.postgres.fencing import become_writer
from housekeeping.stores.postgres.ranges import HeapRange

_BATCH_ROWS, _BATCH_BYTES = 500, 1 << 20  # of an export: about 50 ms with twenty columns
_MOST_REFUSED = 1_000  # each takes a dozen statements to find
_ATTEMPTS, _PAUSE_SECONDS = 5, 1.0
_FENCE_PATIENCE_SECONDS = 20.0  # a hold is placed within 15 s, a stale batch ends within 5 s
_KEPT_OUT = "a trigger of the table keeps it out"
_NO_TEXT = "a value holds bytes that are no text in this database's encoding"
Window = TypeVar("Window")


class Leaving(Exception):
    """The run ends before all is put back."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class TooManyRefused(Exception):
    """More rows were refused than are worth looking for one by one."""


@dataclass
class Restoring:
    """Puts the rows of one run's parts back, and counts why some stay."""

    connection: Connection
    policy: RestorePolicy
    run_id: UUID
    objection: Callable[[], StopReason | None]
    budget: Budget
    clock: Clock
    events: EventStream
    expected: int
    throttle: Throttle
    waited: Waited
    report: RunReport
    number: int = 0
    restored: int = 0
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    """by relation"""
    refusals: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.standing_back = StandingBack(
            self.connection, self.policy.pace, self.clock, self.waited, self._tell_wait, self.watch
        )

    def put_back_all(self, part: Part) -> None:
        """Put one table's rows back. Raises Leaving, TooManyRefused, and what outcomes know.

        A row that refers to one of its own table may come before that one; so such a table is gone
        through again for as long as this brings rows back.
        """
        restored = -1
        while self.restored != restored:
            restored = self.restored
            self._put_back(part)
            if part.to.key == () or not part.to.refers_to_itself:
                break
            if not self.counts[part.relation][REFUSED]:
                break

    def _put_back(self, part: Part) -> None:
        writer = become_writer(self.connection, part.to.facts, self.run_id, self.policy.pace)
        earlier = self.counts.get(part.relation, Counter())[RESTORED]
        self.counts[part.relation] = Counter({RESTORED: earlier})
        manifest = part.manifest
        walk = "restore" if manifest is None else f"restore {manifest.mark}"
        back = PuttingBack(self.connection, part.to, writer.ledger, self.policy.pace, walk)
        if part.live is not None:
            self._move(part, part.live, back)
        else:
            self._insert(part, back)

    def _move(self, part: Part, table: ArchivedTable, back: PuttingBack) -> None:
        pages = self.standing_back.read(part.touched, lambda: self._pages(table))
        density = max(part.rows, 1) / max(pages, 1)
        pace = self.policy.pace
        start = max(1, int(pace.first_window_rows / density))
        size = WindowSize(start, pace.batch_target.total_seconds(), density)
        at = 0

        def moved(window: HeapRange) -> Counter[str]:
            return back.move(table.identifier, table.relation, window, self.number)

        while at < pages:
            first, at = at, min(pages, at + size.current)
            counts, seconds = self._window(
                part, HeapRange.blocks(first, at), moved, HeapRange.halves, size.shrink
            )
            size.took(at - first, seconds, counts[RESTORED])

    def _pages(self, table: ArchivedTable) -> int:
        with guarded(self.connection, self.policy.pace, reading=True, any_plan=True):
            return describe_table(self.connection, table.oid).pages

    def _insert(self, part: Part, back: PuttingBack) -> None:
        assert part.manifest is not None
        assert part.exports is not None
        # Without a key a row that was put back earlier would be there twice.
        done = [] if part.to.key else back.done()
        at = 0
        taken: list[TextRow] = []

        def inserted(batch: Batch) -> Counter[str]:
            counts, refused = back.insert(batch.rows, (batch.first, batch.end), self.number)
            taken.extend(refused)
            return counts

        for rows in bounded(part.exports.rows(part.manifest), part.places):
            batch, at = Batch(at, tuple(rows)), at + len(rows)
            left = batch.outside(done)
            for each in left:
                self._window(part, each, inserted, Batch.halves, lambda: None)
            there = len(rows) - sum(len(each.rows) for each in left)
            # After the commit, and on its own: done again, a window would find its own rows there.
            same = self.standing_back.read(part.touched, partial(back.there_already, taken))
            counted = {ALREADY_THERE: there + same, KEY_TAKEN: len(taken) - same}
            self.counts[part.relation].update(counted)
            taken.clear()

    def _window(
        self,
        part: Part,
        window: Window,
        work: Callable[[Window], Counter[str]],
        halves: Callable[[Window], Sequence[Window]],
        shrink: Callable[[], None],
    ) -> tuple[Counter[str], float]:
        """Do a window, halved wherever it is refused; return what it did, and how long it took."""
        total: Counter[str] = Counter()
        begun = self.clock.monotonic()
        waiting = [window]
        while waiting:
            self.watch()
            one = waiting.pop()
            self.number += 1
            counts, told = self._tried(part, one, work)
            if counts is not None:
                total.update(counts)
                continue
            shrink()
            parts = halves(one)
            waiting += reversed(parts)
            if not parts:
                self._refuse(part.relation, told)
        seconds = self.clock.monotonic() - begun
        self._count(part.relation, total, seconds)
        self.throttle.rest_after(seconds)
        return total, seconds

    def _tried(
        self, part: Part, window: Window, work: Callable[[Window], Counter[str]]
    ) -> tuple[Counter[str] | None, str]:
        """Do one window; return what it did, or None and why it was refused.

        Raises TableBlocked and LeaseLost for what no smaller window would cure.
        """
        told, left = "", _ATTEMPTS
        fenced_until = self.clock.monotonic() + _FENCE_PATIENCE_SECONDS
        while left:
            try:
                with self.throttle.window():
                    return work(window), ""
            except (NotAllTaken, UnicodeError) as error:
                return None, _NO_TEXT if isinstance(error, UnicodeError) else _KEPT_OUT
            except FenceTaken:
                self._stay_before_fence(part, fenced_until)
            except DBAPIError as error:
                condition, told = condition_of(error), self.throttle.cause(error)
                if condition in (Condition.REFUSED_BY_ROW, Condition.TOO_SLOW):
                    return None, told
                if condition is not Condition.CONTENDED:
                    raise
                left -= not self.standing_back.from_lock_on(part.touched)
            Rest(1.0, self.clock, self.objection).pause(_PAUSE_SECONDS)
            self.watch()
        return None, told

    def watch(self) -> None:
        reason = self.objection() or self.budget.spent(self.restored) or self.throttle.hold()
        if reason is not None:
            raise Leaving(reason)

    def _stay_before_fence(self, part: Part, until: float) -> None:
        if self.clock.monotonic() > until:
            reason = "another session keeps working on the table"
            raise LeaseLost(target=part.to.facts.label, reason=reason) from None

    def _tell_wait(self, cause: str) -> None:
        self.report.awaiting(cause, self.restored, self.restored / max(1, self.expected))

    def _count(self, relation: str, counts: Counter[str], seconds: float) -> None:
        self.counts[relation].update(counts)
        self.restored += counts[RESTORED]
        self.events.publish(
            WindowCommitted(
                operation=self.policy.operation,
                policy=self.policy.name,
                run_id=str(self.run_id),
                rows=counts[RESTORED],
                seconds=round(seconds, 4),
                done=self.restored,
                estimate=max(self.expected, self.restored),
                percent=min(99, 100 * self.restored // max(1, self.expected)),
            )
        )

    def _refuse(self, relation: str, told: str) -> None:
        self.counts[relation][REFUSED] += 1
        if told not in self.refusals:
            self.refusals.append(told)
        if sum(counts[REFUSED] for counts in self.counts.values()) >= _MOST_REFUSED:
            raise TooManyRefused(f"{_MOST_REFUSED:,} rows were refused; the first: {told}")


@dataclass(frozen=True)
class Batch:
    """Rows of an export that follow each other."""

    first: int
    rows: tuple[TextRow, ...]

    @property
    def end(self) -> int:
        return self.first + len(self.rows)

    def outside(self, ranges: Sequence[tuple[int, int]]) -> tuple["Batch", ...]:
        """Return what lies in none of the ranges, which are in order and apart."""
        left, at = [], self.first
        for lower, upper in [*ranges, (self.end, self.end)]:
            if at < min(lower, self.end):
                rows = self.rows[at - self.first : min(lower, self.end) - self.first]
                left.append(Batch(at, rows))
            at = max(at, upper)
        return tuple(left)

    def halves(self) -> tuple["Batch", ...]:
        middle = len(self.rows) // 2
        if not middle:
            return ()
        return Batch(self.first, self.rows[:middle]), Batch(self.first + middle, self.rows[middle:])


def bounded(batches: Iterable[list[TextRow]], places: Sequence[int]) -> Iterator[list[TextRow]]:
    """Yield rows with only the values at `places`, as many at a time as a transaction should take."""
    held: list[TextRow] = []
    size = 0
    for batch in batches:
        for row in batch:
            kept = tuple(row[place] for place in places)
            held.append(kept)
            size += bytes_in((kept,))
            if len(held) >= _BATCH_ROWS or size >= _BATCH_BYTES:
                yield held
                held, size = [], 0
    if held:
        yield held
