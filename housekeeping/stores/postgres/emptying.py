"""What happens inside a window's transaction: which statements go in which order, and what they did."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from sqlalchemy import Connection

from housekeeping.stores.postgres.archiving import Archive
from housekeeping.stores.postgres.deletion import Deletion, child_of
from housekeeping.stores.postgres.moving import Move
from housekeeping.stores.postgres.predicate import Predicate
from housekeeping.stores.postgres.preflight import Target
from housekeeping.stores.postgres.ranges import Range
from housekeeping.stores.postgres.slicing import Slicing, SmallRests, Taken
from housekeeping.stores.postgres.statement import Statement, execute

CHILD_ROWS = 20_000  # of one child table in one transaction; about 100 ms of indexed deletes


class Held(Enum):
    """What to do about a row another session holds."""

    WAIT = auto()
    """up to lock_timeout, then the window fails"""
    PASS = auto()
    """take the others and count what stays"""


class TooManyChildren(Exception):
    """The window's rows own more child rows than one transaction should take."""


class RowsRefused(Exception):
    """Some row of the window can't go; a smaller window tells which."""


@dataclass(frozen=True)
class How:
    """How a window is to be emptied."""

    held: Held = Held.WAIT
    limit: int | None = None
    """at most so many rows"""
    drain: bool = False
    """the window can't be divided: children may go in several transactions ahead of it"""
    replaying: bool = False
    """its rows may be in the archive already"""
    rests: SmallRests | None = None
    """small rests inside the transaction; None where the run never rests"""


@dataclass(frozen=True)
class Emptied:
    """What went."""

    counts: Counter[str]
    """rows by reason, and children by their key"""
    left_behind: int = 0
    """expired rows another session holds"""
    unfinished: bool = False
    """only children went; the same window has to be done again"""
    moved: dict[str, int] = field(default_factory=dict)
    """rows by the dated table they went to"""
    rested: float = 0.0
    """seconds of small rests"""


class Emptying:
    """Takes the expired rows out of one window, in the transaction that is open."""

    def __init__(
        self,
        connection: Connection,
        target: Target,
        archive: Archive | None,
        range_: Range,
        predicate: Predicate,
        how: How,
        slicing: Slicing,
    ) -> None:
        self._connection = connection
        self._target = target
        self._range = range_
        self._slicing = slicing
        self._archive = archive
        self._predicate = predicate
        self._how = how
        self._move: Move | None = None
        if archive is not None:
            self._move = archive.statements(range_, predicate, replaying=how.replaying)
            archive.begin_window(connection)
        self._deletion = self._move or self._of(range_)

    def empty(self) -> Emptied:
        """Do it. Raises TooManyChildren, RowsRefused, PeriodsMissed and DBAPIError."""
        how = self._how
        if self._archive is not None and self._move is not None:
            self._archive.foresee(self._connection, self._move)
        pins = self._target.pins or how.replaying
        if pins or how.held is Held.PASS or how.limit is not None:
            return self._pinned()
        return self._direct()

    def _direct(self) -> Emptied:
        """Take the rows without pinning them, in slices where the run rests."""
        taken = self._taken()
        counts, moved = self._counted(taken.told)
        if taken.removed:
            counts[self._predicate.reasons[0]] += taken.removed
        return Emptied(counts, self._stayed(), moved=moved, rested=taken.rested)

    def _taken(self) -> Taken:
        rests = self._how.rests
        if rests is not None and self._slicing.allowed(self._connection):
            facts = self._target.facts
            return self._slicing.take(self._connection, facts, self._range, rests, self._of)
        result = execute(self._connection, self._deletion.direct(), **self._deletion.values)
        if result.returns_rows:
            return Taken(told=[tuple(row) for row in result])
        return Taken(removed=result.rowcount)

    def _of(self, range_: Range) -> Deletion:
        """Return the statements for a part of the window."""
        if self._archive is not None:
            how = self._how
            return self._archive.statements(range_, self._predicate, replaying=how.replaying)
        return Deletion(self._target.facts, self._target.children, range_, self._predicate)

    def _pinned(self) -> Emptied:
        deletion, how = self._deletion, self._how
        pin = deletion.pin(skip_locked=how.held is Held.PASS)
        pinned = self._ask(pin, limit=how.limit)
        counts: Counter[str] = Counter()
        moved: dict[str, int] = {}
        if pinned:
            self._pin_children()
            if how.replaying:
                self._refuse_differing()
            if (drained := self._bound_children()) is not None:
                return drained
            counts, moved = self._done(deletion.delete_pinned())
        gone = sum(counts[reason] for reason in self._predicate.reasons)
        if how.limit is not None and gone > how.limit:
            raise TooManyChildren  # of its own table: locked as relatives, and expired as well
        if gone == how.limit:
            return Emptied(counts, moved=moved)
        # Rows that were pinned and stayed: something keeps them now, or an update moved them away.
        strayed = pinned - gone if not self._target.keeps else 0
        return Emptied(counts, max(strayed, self._stayed()), moved=moved)

    def _pin_children(self) -> None:
        skip = self._how.held is Held.PASS
        for child in self._target.children:
            if child.keeps or self._how.replaying:
                self._ask(self._deletion.pin_children(child, skip_locked=skip))
        for statement in self._deletion.pin_relatives(skip_locked=skip):
            self._ask(statement)

    def _stayed(self) -> int:
        """Count expired rows that are still there: somebody holds them, or a trigger keeps them."""
        if self._how.held is Held.WAIT and not self._target.facts.delete_triggers:
            return 0
        found = execute(
            self._connection, self._deletion.count(), **self._deletion.values, limit=None
        )
        return sum(count for _, count in found)

    def _bound_children(self) -> Emptied | None:
        """Keep the children of a window within bounds: by dividing it, or by draining them."""
        counts: Counter[str] = Counter()
        moved: Counter[str] = Counter()
        for number, child in enumerate(self._target.children):
            count = self._deletion.count_children(child)
            if self._ask(count, children=CHILD_ROWS + 1) <= CHILD_ROWS:
                continue
            if not self._how.drain:
                raise TooManyChildren
            if child.keeps:
                continue  # its rows decide about the parent: they go together with it or not at all
            drained = self._drain(number)
            counts.update(drained.counts)
            moved.update(drained.moved)
        # Nothing could be drained: somebody works on a row that may keep the parent, which stays then.
        return Emptied(counts, unfinished=True, moved=dict(moved)) if counts.total() else None

    def _drain(self, number: int) -> Emptied:
        key = self._target.children[number].key
        if self._move is None:
            statement = self._deletion.drain(self._target.children[number])
            result = execute(
                self._connection, statement, **self._deletion.values, children=CHILD_ROWS
            )
            return Emptied(Counter({key: result.rowcount}))
        counts, moved = self._done(self._move.drain_child(number), children=CHILD_ROWS)
        return Emptied(counts, moved=moved)

    def _refuse_differing(self) -> None:
        """Refuse rows whose key the archive holds with other contents: they would be lost."""
        assert self._move is not None
        for statement, table in self._move.differing():
            if (rows := self._ask(statement)) > 0:
                raise RowsRefused(
                    f"{table} holds {rows} of these keys already, with other contents"
                )

    def _ask(self, statement: Statement, **values: object) -> int:
        found = execute(self._connection, statement, **self._deletion.values, **values)
        return int(found.scalar_one())

    def _done(self, statement: Statement, **values: object) -> tuple[Counter[str], dict[str, int]]:
        """Run a statement that deletes or moves; return rows by what the result calls them, and rows
        by the dated table they went to.
        """
        result = execute(self._connection, statement, **self._deletion.values, **values)
        return self._counted(result.all())

    def _counted(self, rows: Sequence[Any]) -> tuple[Counter[str], dict[str, int]]:
        told: Counter[str] = Counter()
        moved: dict[str, int] = {}
        if self._archive is not None and self._move is not None:
            told, moved = self._archive.moved(self._connection, self._move.to, rows)
        else:
            for label, count in rows:
                told[str(label)] += int(count)
        counts: Counter[str] = Counter()
        for label, count in told.items():
            counts[self._key(label)] += count  # a child may refer by two keys
        return counts, moved

    def _key(self, label: str) -> str:
        if (child := child_of(label)) is not None:
            return self._target.children[child].key
        return self._predicate.reasons[int(label)]
