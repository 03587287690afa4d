"""A dry run's parts: windows that count, and the statements a real run would send for one."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from housekeeping.engine.planning import HeapPlan, KeyPlan
from housekeeping.engine.run import Request
from housekeeping.engine.walks import walk_of
from housekeeping.operations.dry_runs.outlook import Outlook
from housekeeping.stores.postgres.archive_preview import ArchivePreview
from housekeeping.stores.postgres.conditions import Condition, condition_of
from housekeeping.stores.postgres.connection import guarded
from housekeeping.stores.postgres.deletion import Deletion
from housekeeping.stores.postgres.emptying import How
from housekeeping.stores.postgres.explaining import (
    Explained,
    explained,
    shown_as,
    window_statements,
)
from housekeeping.stores.postgres.predicate import Predicate
from housekeeping.stores.postgres.ranges import HeapRange, KeyRange, Range
from housekeeping.stores.postgres.windows import WindowOutcome, WindowStore

_UNMADE = "the run makes the archive's tables first: the plan leaves them out"


class CountingWindows:
    """Stands where a WindowStore deletes, and counts."""

    def __init__(self, store: WindowStore) -> None:
        self._store = store
        self.held = 0
        """rows that have expired and stay for a hold"""

    def delete(
        self,
        number: int,  # noqa: ARG002 - the shape of WindowStore.delete
        walk: str,  # noqa: ARG002
        range_: Range,
        predicate: Predicate,
        how: How,
        *,
        done_to: str | None,  # noqa: ARG002
    ) -> WindowOutcome:
        self.held += self._store.count_held(range_, predicate)
        return self._store.count(range_, predicate, how.limit)

    def blocked(self) -> str | None:
        return self._store.blocked()

    def record_passed(self, number: int, walk: str, range_: Range, error: str) -> None:
        """Nothing is recorded in a dry run."""


@dataclass(frozen=True)
class Rehearsed:
    """What a run would send."""

    deletes: str
    """the statement that makes the rows of the first walk go"""
    statements: tuple[tuple[str, list[str | None], Explained], ...]
    """walk, bounds of its first window, and each statement for that"""
    dated_tables: dict[str, Any] | None
    """where rows would move to"""
    limit: int | None

    @property
    def limited(self) -> bool:
        return self.limit is not None


def rehearsed(
    connection: Connection, ahead: Outlook, now: datetime, request: Request, *, whole: bool
) -> Rehearsed:
    """Take each walk's first window and have the server plan the statements for it.

    `whole`: where rows are archived, look up the months of all expired rows, not only that window's.
    """
    target, pace = ahead.target, ahead.target.policy.pace
    limits = [limit for limit in (pace.row_budget, request.limit) if limit is not None]
    limit = min(limits) if limits else None
    preview = None
    if target.layout is not None:
        preview = ArchivePreview(connection, target, target.layout, request.run_id, now)
    statements: list[tuple[str, list[str | None], Explained]] = []
    for walk in ahead.plan.walks:
        window = _first_window(connection, ahead, walk)
        if preview is not None and whole:
            preview.look(_all_of(walk), walk.predicate, whole=True)
        for one in _planned(connection, ahead, walk.predicate, window, limit, preview):
            statements.append((walk.name, list(window.bounds()), one))
    first = [one for walk, _, one in statements if walk == ahead.plan.walks[0].name]
    dated = preview.as_dict() if preview else None
    return Rehearsed(first[-1].text, tuple(statements), dated, limit)


def _planned(
    connection: Connection,
    ahead: Outlook,
    predicate: Predicate,
    window: Range,
    limit: int | None,
    preview: ArchivePreview | None,
) -> tuple[Explained, ...]:
    """Return the statements for a window, planned as the run would have them planned."""
    target, pace = ahead.target, ahead.target.policy.pace
    deletion: Deletion
    shown = None
    if preview is None:
        deletion = Deletion(target.facts, target.children, window, predicate)
    else:
        periods = preview.look(window, predicate, whole=False)
        with guarded(connection, pace, reading=True, any_plan=True):
            made = preview.made(periods)
        deletion = preview.move(window, predicate, made)
        if made != periods:
            shown = preview.move(window, predicate, periods)
    with guarded(connection, pace, reading=True):
        found = explained(connection, window_statements(target, deletion, limit))
    if shown is None:
        return found
    full = [shown_as(connection, one) for one, _ in window_statements(target, shown, limit)]
    return tuple(
        one if one.text == text else replace(one, text=text, problem=_UNMADE)
        for one, text in zip(found, full, strict=True)
    )


def _first_window(connection: Connection, ahead: Outlook, plan: HeapPlan | KeyPlan) -> Range:
    """Return the window a run would begin with; of a walk with nothing in it, all of it."""
    walk = walk_of(plan, ahead.target.facts, connection)
    size = ahead.past.sizes.get(plan.name)
    if size is None:
        first = ahead.target.policy.pace.first_window_rows
        size = int(first / max(walk.rows_per_unit, 0.01))
    try:
        return walk.next(max(1, size)) or _all_of(plan)
    except DBAPIError as error:
        if condition_of(error) is not Condition.CONTENDED:
            raise
        return _all_of(plan)


def _all_of(plan: HeapPlan | KeyPlan) -> Range:
    if isinstance(plan, HeapPlan):
        return HeapRange.blocks(0, max(1, plan.blocks))
    return KeyRange(plan.probe.key, None, str(plan.probe.cutoff), upper_included=False, rows=1)
