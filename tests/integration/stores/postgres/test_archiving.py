"""The months a run's statements know: a window reads what it deleted once for each."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from uuid import uuid4

import pytest
from sqlalchemy import Connection

from housekeeping.engine.planning import Planner
from housekeeping.stores.postgres.archiving import Archive
from housekeeping.stores.postgres.connection import connected, guarded
from housekeeping.stores.postgres.cutoffs import cutoffs_at, database_now
from housekeeping.stores.postgres.ledger_schema import ensure_ledger
from housekeeping.stores.postgres.predicate import Predicate
from housekeeping.stores.postgres.preflight import resolve
from housekeeping.stores.postgres.ranges import HeapRange
from tests.integration.archives import archiving
from tests.integration.database import Database


@dataclass(frozen=True)
class OfOneMonth:
    """The archive of a run on a table whose rows are all of January."""

    connection: Connection
    archive: Archive
    predicate: Predicate

    def learn(self) -> None:
        self.archive.learn(self.connection, HeapRange.blocks(0, 1), self.predicate)

    def windows_until_forgotten(self) -> int:
        windows = 0
        while self.archive.destinations.periods:
            self.archive.end_window()
            windows += 1
        return windows


@pytest.fixture
def of_january(events: Database) -> Iterator[OfOneMonth]:
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
        yield OfOneMonth(connection, archive, plan.walks[0].predicate)


def test_a_month_no_window_needs_is_let_go_of_soon_and_later_once_it_came_again(
    of_january: OfOneMonth,
) -> None:
    windows = []
    for _ in range(3):
        of_january.learn()
        windows.append(of_january.windows_until_forgotten())

    assert windows == [3, 21, 21]


def test_a_month_is_needed_by_rows_the_archive_holds_already(of_january: OfOneMonth) -> None:
    of_january.learn()
    archive = of_january.archive
    for _ in range(5):
        to = replace(archive.destinations, replaying=True)
        gone, moved = archive.moved(
            of_january.connection, to, [("0", [7], 7), ("arrived:0:0", [], 0)]
        )
        assert (gone, moved) == ({"0": 7}, {})
        archive.end_window()

    assert archive.destinations.periods
