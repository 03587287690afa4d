"""A dry run's parts: windows that count, and the statement a real run would send."""

from sqlalchemy import Connection

from housekeeping.engine.planning import HeapPlan, Plan
from housekeeping.stores.postgres.archiving import Archive
from housekeeping.stores.postgres.deletion import Deletion
from housekeeping.stores.postgres.emptying import How
from housekeeping.stores.postgres.predicate import Predicate
from housekeeping.stores.postgres.preflight import Target
from housekeeping.stores.postgres.ranges import HeapRange, KeyRange, Range
from housekeeping.stores.postgres.windows import WindowOutcome, WindowStore


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

    def blocked(self) -> bool:
        return self._store.blocked()

    def record_passed(self, number: int, walk: str, range_: Range, error: str) -> None:
        """Nothing is recorded in a dry run."""


def first_statement(
    connection: Connection, target: Target, plan: Plan, archive: Archive | None
) -> str:
    """Return the statement a run would send for its windows, with `%(name)s` for bound values."""
    if not plan.walks:
        return ""
    walk = plan.walks[0]
    window: Range
    if isinstance(walk, HeapPlan):
        window = HeapRange.blocks(0, 1)
    else:
        window = KeyRange(walk.probe.key, None, "", True, 1)
    if archive is not None:
        deletion: Deletion = archive.statements(window, walk.predicate, replaying=False)
    else:
        deletion = Deletion(target.facts, target.children, window, walk.predicate)
    statement = deletion.delete_pinned() if target.pins else deletion.direct()
    return " ".join(statement.text(connection).split())
