"""A hold holds in the archive too: a month with a held row stays, whenever the hold was placed."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.operations.archives import group_expiry
from housekeeping.operations.holds import place_hold
from housekeeping.policies.errors import HoldUnusable
from housekeeping.policies.events import Event, WindowCommitted
from housekeeping.policies.hold import Hold
from housekeeping.policies.table import TableName
from tests.integration.archived import (
    FEBRUARY,
    JANUARY,
    archiving,
    entry,
    expire,
    expiring,
    there,
)
from tests.integration.database import Database
from tests.integration.runs import BRISK, listening, run


def place(database: Database, where: str) -> None:
    place_hold(database.url, TableName("events"), where, "case 42", "tester@here")


def on_events(where: str) -> dict[str, Any]:
    hold = Hold(name="lawsuit", table=TableName("events"), where=where, reason="case 42")
    return {"holds": (hold,)}


@pytest.mark.parametrize("placed", ["settings", "database"])
@pytest.mark.parametrize("where", ["id = 2", "events.note = 'note 2'"])
def test_a_month_with_a_held_row_stays_and_that_is_no_fault(
    archived: Database, around: Surroundings, placed: str, where: str
) -> None:
    given = on_events(where) if placed == "settings" else {}
    if placed == "database":
        place(archived, where)

    planned = expire(expiring(archived, **given), around, dry_run=True)
    result = expire(expiring(archived, **given), around, confirmed=True)

    assert (result.success, result.total, result.left_behind) == (True, 1, 0)
    assert there(archived) == [JANUARY]
    assert "case 42" in entry(result, JANUARY)["why"]
    assert entry(planned, JANUARY)["done"] == "would stay"
    assert len(result.holds) == 1


def test_a_hold_on_no_row_of_it_keeps_nothing(archived: Database, around: Surroundings) -> None:
    assert expire(expiring(archived, **on_events("id < 0 OR NULL")), around).total == 2


def test_a_hold_that_can_not_be_asked_of_a_month_keeps_it(
    archived: Database, around: Surroundings
) -> None:
    archived.run("ALTER TABLE events ADD verdict text")
    result = expire(expiring(archived, **on_events("verdict = 'open'")), around)
    assert result.total == 0
    assert "can't be asked of it" in entry(result, JANUARY)["why"]


def test_a_hold_that_can_not_be_honoured_keeps_everything(
    archived: Database, around: Surroundings
) -> None:
    with pytest.raises(HoldUnusable):
        expire(expiring(archived, **on_events("no_such_column")), around)
    assert len(there(archived)) == 2


def test_a_hold_placed_while_a_run_is_under_way_is_kept_to(
    archived: Database, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_expiry, "_PAUSES", (0.05,))

    def hear(event: Event) -> None:
        if isinstance(event, WindowCommitted):
            place(archived, "id = 1")

    result = expire(expiring(archived), listening(around, hear))

    assert result.total == 1
    assert there(archived) == [FEBRUARY]


def test_a_hold_placed_while_its_rows_lines_wait_to_go_keeps_those_too(
    events: Database, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_expiry, "_PAUSES", (0.1,) * 100)
    events.run(
        "CREATE TABLE lines (id int PRIMARY KEY, event bigint REFERENCES events ON DELETE CASCADE);"
        "CREATE INDEX ON lines (event); INSERT INTO events VALUES (1, '2024-01-05');"
        "INSERT INTO lines VALUES (10, 1), (11, 1)"
    )
    run(archiving(events), around)
    policy = expiring(events, pace=replace(BRISK, lock_timeout=timedelta(milliseconds=100)))
    with events.session() as reader, reader.cursor() as cursor, ThreadPoolExecutor(1) as threads:
        cursor.execute("SELECT FROM old_2024_01_lines")
        ours = threads.submit(expire, policy, around)
        events.wait_until_we_wait_for_a_lock()
        place(events, "id = 1")
        reader.rollback()
        result = ours.result(30)

    assert there(events) == [JANUARY, f"{JANUARY}_lines"]
    assert (result.success, result.total, len(result.holds)) == (True, 0, 1)
    assert "case 42" in entry(result, JANUARY)["why"]
