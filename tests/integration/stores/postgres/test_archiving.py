"""The months a run's statements know: a window reads what it deleted once for each."""

from uuid import uuid4

from housekeeping.engine.planning import Planner
from housekeeping.stores.postgres.archiving import Archive
from housekeeping.stores.postgres.connection import connected, guarded
from housekeeping.stores.postgres.cutoffs import cutoffs_at, database_now
from housekeeping.stores.postgres.ledger_schema import ensure_ledger
from housekeeping.stores.postgres.preflight import resolve
from housekeeping.stores.postgres.ranges import HeapRange
from tests.integration.archives import archiving
from tests.integration.database import Database


def test_a_month_no_window_needs_is_let_go_of_soon_and_later_once_it_came_again(
    events: Database,
) -> None:
    events.run("INSERT INTO events VALUES (1, '2024-01-10')")
    policy = archiving(events)
    with connected(events.url, "hk:test") as connection:
        ensure_ledger(connection)
        with guarded(connection, policy.pace, reading=True, any_plan=True):
            now = database_now(connection)
            target = resolve(connection, policy)
            plan = Planner(connection, target, now, cutoffs_at(policy, now)).plan()
        assert target.layout is not None
        archive = Archive(target, target.layout, uuid4(), now)

        def windows_january_is_known_for() -> int:
            archive.learn(connection, HeapRange.blocks(0, 1), plan.walks[0].predicate)
            windows = 0
            while archive.destinations.periods:
                archive.end_window()
                windows += 1
            return windows

        assert [windows_january_is_known_for() for _ in range(3)] == [3, 21, 21]
