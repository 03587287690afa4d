"""The loop of a purge: one window after the other until there is a reason to stop."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from sqlalchemy.exc import DBAPIError

from housekeeping.engine.outcomes import ConnectionLost
from housekeeping.engine.pacing import Budget, Clock, Rest
from housekeeping.engine.sizing import WindowSize
from housekeeping.engine.throttling import Throttle
from housekeeping.engine.walks import Walk
from housekeeping.policies.errors import LeaseLost, TableBlocked
from housekeeping.policies.pace import Pace
from housekeeping.policies.result import Phases, StopReason
from housekeeping.stores.postgres.conditions import Condition, condition_of, sentence
from housekeeping.stores.postgres.emptying import Held, How, RowsRefused, TooManyChildren
from housekeeping.stores.postgres.predicate import Predicate
from housekeeping.stores.postgres.ranges import Range
from housekeeping.stores.postgres.windows import FenceBusy, WindowOutcome

_log = logging.getLogger("housekeeping.purge")
Done = TypeVar("Done")

_FENCE_PATIENCE_SECONDS = 20.0  # a hold is placed within 15 s, a stale batch ends within 5 s
_FENCE_STEP_SECONDS = 0.1
TABLE_PATIENCE_SECONDS = 60.0  # then the worker's place is better used; the run is taken up later
_LONGEST_TABLE_STEP_SECONDS = 5.0
MOST_REFUSING_ROWS = 100  # more than that is no poisoned row but a wrong policy


class Windows(Protocol):
    """Where windows are deleted; see stores.postgres.windows.WindowStore."""

    def delete(
        self,
        number: int,
        walk: str,
        range_: Range,
        predicate: Predicate,
        how: How,
        *,
        done_to: str | None,
    ) -> WindowOutcome: ...

    def record_passed(self, number: int, walk: str, range_: Range, error: str) -> None: ...

    def blocked(self) -> str | None: ...


class Report(Protocol):
    """Hears how the loop gets on."""

    def committed(self, outcome: WindowOutcome, tally: "Tally", fraction: float | None) -> None: ...

    def shrunk(self, window: Range, cause: str) -> None: ...

    def passed(self, window: Range, cause: str, rows: int) -> None: ...


@dataclass
class Tally:
    """What a loop has done so far; the ledger holds the same in committed rows."""

    number: int = 0
    rows: int = 0
    left_behind: int = 0
    refusing: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    sizes: dict[str, int] = field(default_factory=dict)
    phases: Phases = field(default_factory=Phases)


@dataclass(frozen=True)
class _Part:
    """A window, or a piece of one, and how to go about it."""

    range: Range
    held: Held = Held.WAIT
    drain: bool = False


class PurgeLoop:
    """Clears the windows of all walks."""

    def __init__(
        self,
        windows: Windows,
        pace: Pace,
        budget: Budget,
        rest: Rest,
        clock: Clock,
        objection: Callable[[], StopReason | None],
        report: Report,
        tally: Tally,
        throttle: Throttle | None = None,
    ) -> None:
        self._windows = windows
        self._throttle = throttle or Throttle(rest)
        self._pace = pace
        self._budget = budget
        self._rest = rest
        self._clock = clock
        self._objection = objection
        self._report = report
        self.tally = tally

    def run(self, walks: Sequence[Walk]) -> StopReason:
        """Clear the windows of the walks in order; return why it ended.

        Raises LeaseLost, ShardTaken, ConnectionLost, and the DBAPIError no smaller window would cure.
        """
        for walk in walks:
            reason = self._clear_walk(walk)
            if reason is not None:
                return reason
        return StopReason.EXHAUSTED

    def _reason_to_stop(self) -> StopReason | None:
        return self._objection() or self._budget.spent(self.tally.rows)

    def _held(self) -> StopReason | None:
        begun = self._clock.monotonic()
        reason = self._throttle.hold()
        self.tally.phases.wait += self._clock.monotonic() - begun
        return reason

    def _clear_walk(self, walk: Walk) -> StopReason | None:
        start = self.tally.sizes.get(walk.name)
        if start is None:
            start = int(self._pace.first_window_rows / max(walk.rows_per_unit, 0.01))
        target = self._pace.batch_target.total_seconds()
        size = WindowSize(max(1, start), target, walk.rows_per_unit)
        while True:
            if (reason := self._reason_to_stop()) is not None:
                return reason
            begun = self._clock.monotonic()
            window = self._next(walk, size)
            self.tally.phases.probe += self._clock.monotonic() - begun
            if window is None or isinstance(window, StopReason):
                return window
            # Only now: who has nothing to do waits for nobody.
            if (reason := self._held() or self._clear(walk, window, size)) is not None:
                return reason
            self.tally.sizes[walk.name] = size.current

    def _next(self, walk: Walk, size: WindowSize) -> Range | StopReason | None:
        """Return the walk's next window; a reason to stop, if one came up while we stood back."""
        while True:
            try:
                return walk.next(size.current)
            except DBAPIError as error:
                if condition_of(error) is not Condition.CONTENDED:
                    raise
                self._wait_for_table()
                if (reason := self._reason_to_stop()) is not None:
                    return reason

    def _clear(self, walk: Walk, window: Range, size: WindowSize) -> StopReason | None:
        """Clear one window, in pieces where it must be."""
        parts = [_Part(window)]
        while parts:
            part = parts.pop()
            done_to = None if parts else walk.position()
            outcome, rest = self._attempt(walk, part, size, done_to)
            parts.extend(reversed(rest))
            if outcome is not None:
                self._count(walk, part, outcome, size)
            if parts and (reason := self._reason_to_stop() or self._held()) is not None:
                return reason
        return None

    def _attempt(
        self, walk: Walk, part: _Part, size: WindowSize, done_to: str | None
    ) -> tuple[WindowOutcome | None, tuple[_Part, ...]]:
        """Try a part once; return what it did and what is still to be done."""
        try:
            outcome = self._delete(walk, part, done_to)
        except TooManyChildren:
            return None, self._smaller(walk, part, size, "its rows own too many child rows")
        except RowsRefused as refused:
            return None, self._isolate(walk, part, str(refused))
        except DBAPIError as error:
            return None, self._after(error, walk, part, size)
        return outcome, (part,) if outcome.unfinished else ()

    def _delete(self, walk: Walk, part: _Part, done_to: str | None) -> WindowOutcome:
        return self._patiently(
            walk,
            lambda: self._windows.delete(
                self.tally.number + 1,
                walk.name,
                part.range,
                walk.predicate,
                How(
                    part.held,
                    self._budget.rows_left(self.tally.rows),
                    part.drain,
                    rests=self._throttle.rests_within(self._pace.batch_target.total_seconds()),
                ),
                done_to=done_to,
            ),
        )

    def _patiently(self, walk: Walk, act: Callable[[], Done]) -> Done:
        """Do something under the table's fence once a batch of somebody else has ended."""
        patience = self._clock.monotonic() + _FENCE_PATIENCE_SECONDS
        while True:
            try:
                with self._throttle.window():
                    return act()
            except FenceBusy:
                if self._clock.monotonic() >= patience:
                    raise LeaseLost(
                        target=walk.name, reason="another session keeps deleting from the table"
                    ) from None
                self.tally.phases.wait += self._rest.pause(_FENCE_STEP_SECONDS)

    def _after(
        self, error: DBAPIError, walk: Walk, part: _Part, size: WindowSize
    ) -> tuple[_Part, ...]:
        condition = condition_of(error)
        if condition is Condition.CONNECTION_LOST:
            raise ConnectionLost(sentence(error)) from error
        if condition is Condition.HOPELESS:
            raise error
        if condition is Condition.CONTENDED and self._windows.blocked():
            self._wait_for_table()
            return (part,)
        if condition is Condition.CONTENDED and part.held is Held.WAIT:
            size.shrink()
            return (_Part(part.range, Held.PASS, part.drain),)
        if condition is Condition.REFUSED_BY_ROW:
            return self._isolate(walk, part, sentence(error))
        return self._smaller(walk, part, size, self._throttle.cause(error))

    def _wait_for_table(self) -> None:
        """Stand back while somebody holds the whole table; no smaller window would help.

        Raises TableBlocked when that takes too long.
        """
        begun, pause = self._clock.monotonic(), _FENCE_STEP_SECONDS
        while (table := self._windows.blocked()) is not None:
            waited = self._clock.monotonic() - begun
            if waited > TABLE_PATIENCE_SECONDS:
                raise TableBlocked(table=table, seconds=int(waited))
            if self._reason_to_stop() is not None:
                return
            self.tally.phases.wait += self._rest.pause(pause)
            pause = min(2 * pause, _LONGEST_TABLE_STEP_SECONDS)

    def _smaller(self, walk: Walk, part: _Part, size: WindowSize, cause: str) -> tuple[_Part, ...]:
        """Halve a window that asks too much of one transaction."""
        size.shrink()
        pieces = walk.divide(part.range)
        self._report.shrunk(part.range, cause)
        if pieces:
            return tuple(_Part(piece, part.held) for piece in pieces)
        if not part.drain:
            return (_Part(part.range, part.held, drain=True),)
        self._pass(walk, part, cause)
        return ()

    def _isolate(self, walk: Walk, part: _Part, cause: str) -> tuple[_Part, ...]:
        """Halve a window down to the row that refuses to go, and pass that one."""
        pieces = walk.divide(part.range)
        if not pieces:
            self._pass(walk, part, cause)
        return tuple(_Part(piece, part.held, part.drain) for piece in pieces)

    def _pass(self, walk: Walk, part: _Part, cause: str) -> None:
        self.tally.number += 1
        number = self.tally.number
        self._patiently(
            walk, lambda: self._windows.record_passed(number, walk.name, part.range, cause)
        )
        self.tally.left_behind += 1
        self.tally.refusing += 1
        self._report.passed(part.range, cause, 1)
        if self.tally.refusing > MOST_REFUSING_ROWS:
            told = f"{self.tally.refusing} rows refused to go: no poisoned rows, a wrong policy"
            raise RefusedTooOften(f"{told}. The last one: {cause}")

    def _count(self, walk: Walk, part: _Part, outcome: WindowOutcome, size: WindowSize) -> None:
        tally = self.tally
        tally.number += 1
        tally.rows += outcome.rows
        tally.left_behind += outcome.left_behind
        tally.counts.update(outcome.counts)
        tally.phases.delete += outcome.delete_seconds
        tally.phases.commit += outcome.commit_seconds
        worked = outcome.delete_seconds + outcome.commit_seconds
        growing = not self._throttle.slow
        # Its rests too: the target is how long a transaction holds what it has locked.
        lasted = worked + outcome.rested_seconds
        size.took(
            walk.units(part.range),
            lasted,
            outcome.work,
            overhead=outcome.overhead_seconds,
            may_grow=growing,
        )
        if outcome.left_behind:
            self._report.passed(
                part.range, "another session holds them, or a trigger", outcome.left_behind
            )
        self._report.committed(outcome, tally, walk.fraction())
        tally.phases.wait += outcome.rested_seconds
        tally.phases.wait += self._throttle.rest_after(worked, outcome.rested_seconds)


class RefusedTooOften(Exception):
    """More rows refused to go than a few poisoned ones; the last said why."""
