"""What a moving statement takes for granted: that a dated table takes what it is given, and that the
next window's rows are of months there are tables for.
"""

from dataclasses import replace
from datetime import timedelta

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.policies.result import StopReason
from tests.conditions import wait_until
from tests.integration.archives import archived, archiving, fill
from tests.integration.database import Database
from tests.integration.runs import BRISK, SMALL_WINDOWS, AfterWindow, listening, run

SWALLOW = "BEGIN RETURN NULL; END"
JANUARY = "events_archive_2024_01"


def trigger_on_january(events: Database, does: str, when: str = "BEFORE") -> None:
    events.run(
        f"CREATE FUNCTION interfere() RETURNS trigger LANGUAGE plpgsql AS '{does}';"
        f"CREATE TRIGGER interfere {when} INSERT ON {JANUARY} FOR EACH ROW"
        " EXECUTE FUNCTION interfere()"
    )


def january(events: Database, rows: int) -> None:
    events.run("INSERT INTO events SELECT i, '2024-01-10' FROM generate_series(1, %s) i", rows)
    events.run("ANALYZE events")


@pytest.mark.parametrize("walker", ["heap", "index"])
def test_a_trigger_that_swallows_rows_on_their_way_loses_none(
    events: Database, around: Surroundings, walker: str
) -> None:
    january(events, 2)
    run(archiving(events), around, limit=1)
    trigger_on_january(events, SWALLOW)
    result = run(archiving(events), around, walker=walker)
    assert result.stop_reason is StopReason.ERROR
    assert "keeps rows out" in str(result.error)
    assert events.count("events") == 1


def test_a_trigger_made_while_a_run_goes_on_loses_no_row(
    events: Database, around: Surroundings
) -> None:
    january(events, 5_000)
    made = AfterWindow(lambda: trigger_on_january(events, SWALLOW), window=3)
    result = run(archiving(events, pace=SMALL_WINDOWS), listening(around, made), walker="heap")
    assert made.outcome is None
    assert result.stop_reason is StopReason.ERROR
    assert 0 < result.total == archived(events)[JANUARY] == 5_000 - events.count("events")


def test_a_trigger_that_only_looks_on_changes_nothing(
    events: Database, around: Surroundings
) -> None:
    january(events, 300)
    run(archiving(events), around, limit=1)
    events.run("CREATE TABLE seen (id bigint)")
    trigger_on_january(events, "BEGIN INSERT INTO seen VALUES (NEW.id); RETURN NULL; END", "AFTER")
    result = run(archiving(events, pace=SMALL_WINDOWS), around)
    assert (result.success, result.total) == (True, 299)
    assert archived(events) == {JANUARY: 300}
    assert events.count("seen") == 299


def test_a_rule_that_swallows_rows_loses_none(events: Database, around: Surroundings) -> None:
    january(events, 2)
    run(archiving(events), around, limit=1)
    events.run(f"CREATE RULE swallow AS ON INSERT TO {JANUARY} DO INSTEAD NOTHING")
    result = run(archiving(events), around)
    assert result.stop_reason is StopReason.ERROR
    assert events.count("events") == 1


@pytest.mark.parametrize("walker", ["heap", "index"])
def test_no_window_is_deleted_for_nothing_where_a_month_begins(
    events: Database, around: Surroundings, walker: str
) -> None:
    fill(events, 30_000, "5 minutes")  # 8,640 a month
    even = replace(BRISK, first_window_rows=3_000, batch_target=timedelta(milliseconds=10))
    result = run(archiving(events, pace=even), around, walker=walker)
    assert result.success
    assert len(archived(events)) >= 3
    # Deletes that were rolled back count here too. Windows of under 16 blocks are not looked into
    # before, and a busy machine makes some; without a look a third of the rows goes twice.
    deleted = "SELECT n_tup_del FROM pg_stat_user_tables WHERE relname = 'events'"
    wait_until(lambda: events.one(deleted) >= result.total, 10)
    assert events.one(deleted) < result.total * 1.25
