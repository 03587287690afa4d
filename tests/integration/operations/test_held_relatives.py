"""Held rows of other tables keep the rows they would go along with."""

from dataclasses import replace
from datetime import timedelta

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.policies.errors import HoldUnusable
from housekeeping.policies.result import StopReason
from housekeeping.stores.postgres.emptying import CHILD_ROWS
from tests.integration.database import Database
from tests.integration.holding import (
    BOTH_WALKERS,
    LETTERS,
    PAGES,
    PATIENT,
    WAYS,
    fill,
    hold_on,
    old,
    place,
    run_held,
)
from tests.integration.runs import (
    BRISK,
    policy_on,
    run,
    running,
)


@WAYS
@BOTH_WALKERS
@pytest.mark.parametrize("action", ["CASCADE", "SET NULL", "SET DEFAULT"])
def test_a_held_row_of_a_child_keeps_its_parent_and_its_siblings(
    events: Database, around: Surroundings, walker: str, placed: str, action: str
) -> None:
    fill(events)
    events.run(LETTERS.replace("CASCADE", action))
    events.run("INSERT INTO letters VALUES (1001, 35), (1002, 35)")

    result = run_held(
        events, around, placed, "letters.id = 1001 AND event > 0", "letters", walker=walker
    )

    assert old(events) == [35]
    assert events.column("SELECT id FROM letters WHERE event = 35 ORDER BY 1") == [35, 1001, 1002]
    assert (result.total, result.success) == (30, True)


@WAYS
@BOTH_WALKERS
@pytest.mark.parametrize("last", ["CASCADE", "SET NULL"])
def test_a_held_row_further_down_keeps_all_above_it(
    events: Database, around: Surroundings, walker: str, placed: str, last: str
) -> None:
    """Each table has a column `status`: the expression means that of its own."""
    fill(events)
    events.run(LETTERS)
    events.run(PAGES.replace("CASCADE", last))
    events.run("UPDATE pages SET status = 'evidence' WHERE letter = 40")
    events.run("UPDATE letters SET status = 'evidence' WHERE id = 41")

    result = run_held(events, around, placed, "status = 'evidence'", "pages", walker=walker)

    assert (old(events), old(events, "letters"), result.total) == ([40], [40], 30)
    assert events.one("SELECT count(*) FROM pages WHERE status = 'evidence' AND letter = 40") == 1


def test_a_held_row_of_a_partitioned_child_keeps_its_parent(
    events: Database, around: Surroundings
) -> None:
    fill(events)
    events.run(
        "CREATE TABLE letters (id int, event bigint REFERENCES events ON DELETE CASCADE)"
        " PARTITION BY LIST (id);"
        "CREATE TABLE letters_rest PARTITION OF letters DEFAULT; CREATE INDEX ON letters (event);"
        "INSERT INTO letters SELECT id, id FROM events"
    )
    place(events, "id = 35", "letters_rest")

    run(policy_on(events), around)

    assert (old(events), old(events, "letters")) == ([35], [35])


def test_a_cascade_that_leads_in_a_circle_past_a_held_table_is_refused(
    events: Database, around: Surroundings
) -> None:
    fill(events)
    events.run(LETTERS)
    events.run(
        "ALTER TABLE letters ADD answers int REFERENCES letters ON DELETE CASCADE;"
        "CREATE INDEX ON letters (answers)"
    )
    assert run(policy_on(events), around, dry_run=True).success

    with pytest.raises(HoldUnusable, match="circle"):
        run(policy_on(events, holds=(hold_on("id = 35", "letters"),)), around)


@BOTH_WALKERS
@pytest.mark.parametrize("action", ["CASCADE", "SET NULL"])
@pytest.mark.parametrize("table", ["letters", "pages"])
@pytest.mark.parametrize("held", ["waited for", "passed over"])
def test_a_relative_that_comes_to_be_held_while_we_look_keeps_its_rows(
    events: Database, around: Surroundings, walker: str, action: str, table: str, held: str
) -> None:
    fill(events)
    letters = LETTERS.replace("CASCADE", action) if table == "letters" else LETTERS
    events.run(letters + ";" + PAGES.replace("CASCADE", action))
    key = "id" if table == "letters" else "letter"
    waits = held == "waited for"
    pace = PATIENT if waits else BRISK
    policy = policy_on(events, holds=(hold_on("status = 'evidence'", table),), pace=pace)
    with events.session() as user, user.cursor() as cursor:
        cursor.execute(f"UPDATE {table} SET status = 'evidence' WHERE {key} = 35")
        with running(policy, around, walker=walker) as ours:
            if waits:
                events.wait_until_we_wait_for_a_lock()
                user.commit()
            result = ours.result(30)
        user.commit()

    assert old(events) == [35]
    assert events.column(f"SELECT {key} FROM {table} WHERE status = 'evidence'") == [35]
    assert result.total == 30


def test_a_row_whose_children_may_not_be_drained_is_passed_and_not_tried_for_ever(
    events: Database, around: Surroundings
) -> None:
    """Somebody works on its letter, which may come to be held, while its 20,001 logs would go first."""
    fill(events)
    events.run(LETTERS)
    events.run(
        "CREATE TABLE logs (event bigint REFERENCES events ON DELETE CASCADE);"
        "CREATE INDEX ON logs (event)"
    )
    events.run("INSERT INTO logs SELECT 35 FROM generate_series(1, %s)", CHILD_ROWS + 1)
    pace = replace(BRISK, time_budget=timedelta(seconds=5))
    policy = policy_on(events, holds=(hold_on("status = 'evidence'", "letters"),), pace=pace)
    with events.session() as user, user.cursor() as cursor:
        cursor.execute("SELECT FROM letters WHERE id = 35 FOR UPDATE")
        result = run(policy, around)
        user.rollback()

    assert (result.stop_reason, result.left_behind) == (StopReason.EXHAUSTED, 1)
    assert (old(events), events.count("logs")) == ([35], CHILD_ROWS + 1)
    assert run(policy, around).success
    assert (old(events), events.count("logs")) == ([], 0)


@BOTH_WALKERS
def test_rows_locked_because_they_may_come_to_be_held_do_not_go_beyond_a_limit(
    events: Database, around: Surroundings, walker: str
) -> None:
    """They refer to the one row that may go, and have expired as well."""
    fill(events)
    events.run(
        "ALTER TABLE events ADD parent bigint REFERENCES events ON DELETE SET NULL;"
        "CREATE INDEX ON events (parent); UPDATE events SET parent = 60 WHERE id BETWEEN 30 AND 59"
    )
    events.run("VACUUM FULL events")
    policy = policy_on(events, holds=(hold_on("status = 'evidence'"),))

    for left in (30, 29):
        result = run(policy, around, limit=1, walker=walker)
        assert (result.total, result.stop_reason) == (1, StopReason.ROW_BUDGET)
        assert len(old(events)) == left
