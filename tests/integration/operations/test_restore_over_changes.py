"""Putting rows back into a table that has changed, or changes what it is given."""

from pathlib import Path

import pytest

from housekeeping.engine.run import Surroundings
from tests.integration.archived import (
    FORMATS,
    archive_two_months,
    archiving,
    ledger_holds_what_is_there,
    prepared,
    put_back,
)
from tests.integration.database import Database
from tests.integration.runs import run

LIVE_AND_EXPORTED = pytest.mark.parametrize("kind", ["live", *FORMATS])
LIVE_AND_CSV = pytest.mark.parametrize("kind", ["live", "csv"])
RENUMBERS = (
    "CREATE FUNCTION renumber() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN NEW.id := {}; RETURN NEW; END $$;"
    "CREATE TRIGGER renumbers BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION renumber()"
)


@LIVE_AND_CSV
def test_rows_a_trigger_gives_another_key_do_not_come_again_and_again(
    events: Database, around: Surroundings, tmp_path: Path, kind: str
) -> None:
    archive_two_months(events, around)
    policy = prepared(events, around, tmp_path, kind)
    events.run("CREATE SEQUENCE numbers START 1000")
    events.run(RENUMBERS.format("nextval('numbers')"))

    for _ in range(2):
        result = put_back(policy, around)
        assert (result.total, result.left_behind) == (0, 20)

    assert events.count("events") == 0
    assert ledger_holds_what_is_there(events)


def test_a_row_whose_key_a_trigger_gives_to_another_is_not_taken_for_that_one(
    events: Database, around: Surroundings, tmp_path: Path
) -> None:
    archive_two_months(events, around)
    events.run(RENUMBERS.format("NEW.id + 2"))

    put_back(prepared(events, around, tmp_path, "live"), around)

    notes = "SELECT note FROM events UNION ALL SELECT note FROM old_2024_01"
    assert len(set(events.column(notes))) == 20


@LIVE_AND_CSV
def test_without_a_key_in_the_table_any_more_rows_come_back_once(
    events: Database, around: Surroundings, tmp_path: Path, kind: str
) -> None:
    archive_two_months(events, around)
    policy = prepared(events, around, tmp_path, kind)
    events.run("ALTER TABLE events DROP CONSTRAINT events_pkey")

    assert put_back(policy, around).total == 20
    again = put_back(policy, around)

    assert (again.success, again.total) == (True, 0)
    assert events.count("events") == 20


@LIVE_AND_CSV
def test_with_a_key_that_is_checked_at_the_end_a_second_time_brings_nothing_twice(
    events: Database, around: Surroundings, tmp_path: Path, kind: str
) -> None:
    archive_two_months(events, around)
    policy = prepared(events, around, tmp_path, kind)
    events.run(
        "ALTER TABLE events DROP CONSTRAINT events_pkey,"
        " ADD PRIMARY KEY (id) DEFERRABLE INITIALLY DEFERRED"
    )
    assert put_back(policy, around).total == 20

    again = put_back(policy, around)

    assert (again.success, again.total) == (True, 0)
    assert again.details["already_there"] == (0 if kind == "live" else 20)


@LIVE_AND_EXPORTED
def test_nulls_in_arrays_come_back_whatever_the_database_reads_them_as(
    events: Database, around: Surroundings, tmp_path: Path, kind: str
) -> None:
    events.run("ALTER TABLE events ADD words text[]")
    events.run("INSERT INTO events VALUES (1, '2024-01-10', 'x', 'y', ARRAY['a', NULL])")
    run(archiving(events), around)
    policy = prepared(events, around, tmp_path, kind)
    name = events.one("SELECT current_database()")
    events.run(f"ALTER DATABASE {name} SET array_nulls = off")

    assert put_back(policy, around).total == 1

    assert events.one("SELECT words FROM events") == ["a", None]


@LIVE_AND_EXPORTED
def test_an_empty_month_is_exported_and_put_back(
    events: Database, around: Surroundings, tmp_path: Path, kind: str
) -> None:
    archive_two_months(events, around)
    assert put_back(prepared(events, around, tmp_path, "live"), around).total == 20

    result = put_back(prepared(events, around, tmp_path, kind), around)

    assert (result.success, result.total) == (True, 0)
