"""Dated tables go once they are past their age; what is in doubt stays, and is told."""

from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.operations.archives.rehearsal import inspect_archive_expiry
from housekeeping.policies.archive import ArchiveTo
from housekeeping.policies.errors import ArchiveKeptTooShort, TableMissing
from housekeeping.policies.hours import MaintenanceHours, Opening
from housekeeping.policies.purge import TableName
from housekeeping.policies.result import StopReason
from housekeeping.stores.postgres.connection import place
from housekeeping.stores.redis.lease import Lease
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
from tests.integration.runs import BRISK, run


def months_kept_since(database: Database, moment: str) -> timedelta:
    """Return a keep_for under which months that ended by `moment` are past their age, no others."""
    return database.one("SELECT now() - %s::timestamptz", moment)


def test_what_is_past_its_age_is_dropped_and_the_ledger_says_so(
    archived: Database, around: Surroundings
) -> None:
    result = expire(expiring(archived), around)

    assert (result.success, result.stop_reason, result.total) == (True, StopReason.EXHAUSTED, 2)
    assert result.as_dict()["total_cleaned"] == 2
    assert result.details == {
        "tables_dropped": 2,
        "tables_exported": 0,
        "rows_dropped": 40,
        "rows_exported": 0,
        "kept_incomplete": 0,
    }
    assert entry(result, JANUARY) == {
        "table": JANUARY,
        "period": "2024_01",
        "done": "dropped",
        "rows": 20,
    }
    assert there(archived) == []
    assert (
        archived.one("SELECT count(*) FROM housekeeping.archive_table WHERE dropped_at IS NULL")
        == 0
    )
    assert archived.one("SELECT success FROM housekeeping.run WHERE operation LIKE 'database%'")


def test_age_counts_from_the_end_of_the_month(archived: Database, around: Surroundings) -> None:
    a_second_short = months_kept_since(archived, "2024-02-01 00:00:00") + timedelta(seconds=60)
    assert expire(expiring(archived, keep_for=a_second_short), around).total == 0
    assert len(there(archived)) == 2

    long_enough = months_kept_since(archived, "2024-02-01 00:00:00")
    assert expire(expiring(archived, keep_for=long_enough), around).total == 1
    assert there(archived) == [FEBRUARY]


def test_rows_without_a_month_stay_unless_asked_for(events: Database, around: Surroundings) -> None:
    events.run("INSERT INTO events VALUES (1, '-infinity')")
    run(archiving(events), around)
    short = timedelta(milliseconds=1)

    assert expire(expiring(events, keep_for=short), around).total == 0
    assert there(events) == ["public.old_undated"]
    assert expire(expiring(events, undated=True), around).total == 0
    assert expire(expiring(events, undated=True, keep_for=short), around).total == 1
    assert there(events) == []


@pytest.mark.parametrize(
    ("tampering", "held"),
    [("INSERT INTO old_2024_01 SELECT 0, created_at, status, note, archived_at, archived_by_run"
      " FROM old_2024_01 LIMIT 1", 21), ("DELETE FROM old_2024_01 WHERE id = 2", 19)],
    ids=["added", "removed"],
)  # fmt: skip
def test_a_table_that_does_not_hold_what_was_moved_into_it_stays(
    archived: Database, around: Surroundings, tampering: str, held: int
) -> None:
    archived.run(tampering)

    result = expire(expiring(archived), around)

    assert not result.success
    assert result.exit_code == 2
    told = entry(result, JANUARY)
    assert told["done"] == "kept"
    assert f"holds {held} rows and the ledger says 20" in told["why"]
    assert result.details["kept_incomplete"] == 1
    assert result.left_behind == 20
    assert there(archived) == [JANUARY]
    assert any(JANUARY in warning for warning in result.warnings)


def test_a_table_of_such_a_name_that_the_ledger_does_not_know_is_never_touched(
    archived: Database, around: Surroundings
) -> None:
    archived.run("CREATE TABLE old_2023_12 (LIKE old_2024_01 INCLUDING ALL)")

    assert expire(expiring(archived), around).success
    assert there(archived) == ["public.old_2023_12"]


def test_another_table_under_a_known_name_stays(archived: Database, around: Surroundings) -> None:
    archived.run("ALTER TABLE old_2024_01 RENAME TO kept_for_the_auditor")
    archived.run("CREATE TABLE old_2024_01 (id bigint, precious text)")

    result = expire(expiring(archived), around)

    assert "another table has taken the name" in entry(result, JANUARY)["why"]
    assert there(archived) == [JANUARY]
    assert archived.count("kept_for_the_auditor") == 20


def test_a_table_of_that_name_that_was_archived_elsewhere_and_swapped_in_is_counted(
    archived: Database, around: Surroundings
) -> None:
    archived.run("ALTER TABLE old_2024_01 RENAME TO kept_for_the_auditor")
    archived.run("CREATE TABLE old_2024_01 (LIKE kept_for_the_auditor)")

    result = expire(expiring(archived), around)

    assert "holds 0 rows and the ledger says 20" in entry(result, JANUARY)["why"]
    assert there(archived) == [JANUARY]


DEPENDING = {
    "view": "CREATE VIEW report AS SELECT id FROM old_2024_01",
    "materialized view": "CREATE MATERIALIZED VIEW report AS SELECT id FROM old_2024_01",
    "foreign key": "CREATE TABLE notes (event bigint REFERENCES old_2024_01)",
    "inheriting table": "CREATE TABLE child () INHERITS (old_2024_01)",
    "function": "CREATE FUNCTION report() RETURNS bigint"
    " BEGIN ATOMIC SELECT count(*) FROM old_2024_01; END",
    "partitioned table": "ALTER TABLE old_2024_01 ALTER COLUMN created_at SET NOT NULL;"
    " CREATE TABLE history (LIKE old_2024_01) PARTITION BY RANGE (created_at);"
    " ALTER TABLE history ATTACH PARTITION old_2024_01"
    " FOR VALUES FROM ('2024-01-01') TO ('2024-02-01')",
    "column of its row type": "CREATE TABLE samples (one old_2024_01)",
}


@pytest.mark.parametrize("what", DEPENDING)
def test_a_table_something_depends_on_stays_and_so_does_that(
    archived: Database, around: Surroundings, what: str
) -> None:
    archived.run(DEPENDING[what])
    named = what == "column of its row type"

    planned = expire(expiring(archived), around, dry_run=True)
    result = expire(expiring(archived), around)

    told = entry(result, JANUARY)
    assert told["done"] == "kept"
    assert ("other objects depend on it" if named else "is depended on by") in told["why"]
    if not named:  # only the server's own refusal knows of it
        assert entry(planned, JANUARY)["why"] == told["why"]
    assert (result.success, result.total) == (False, 1)
    assert JANUARY in there(archived)
    assert archived.count("old_2024_01") == 20


@pytest.mark.parametrize("incomplete", [f"{FEBRUARY}_lines", FEBRUARY])
def test_childrens_tables_go_with_the_one_they_belong_to(
    events: Database, around: Surroundings, incomplete: str
) -> None:
    events.run(
        "CREATE TABLE lines (id int PRIMARY KEY, event bigint REFERENCES events ON DELETE CASCADE);"
        "CREATE INDEX ON lines (event)"
    )
    events.run("INSERT INTO events VALUES (1, '2024-01-05'), (2, '2024-02-05')")
    events.run("INSERT INTO lines VALUES (10, 1), (11, 1), (20, 2)")
    run(archiving(events), around)
    assert there(events) == [JANUARY, f"{JANUARY}_lines", FEBRUARY, f"{FEBRUARY}_lines"]
    events.run(f"DELETE FROM {incomplete}")

    result = expire(expiring(events), around)

    assert (result.total, result.details["rows_dropped"]) == (2, 3)
    assert there(events) == [FEBRUARY, f"{FEBRUARY}_lines"]
    whys = [entry(result, each)["why"] for each in (FEBRUARY, f"{FEBRUARY}_lines")]
    assert sum("holds 0 rows" in why for why in whys) == 1
    assert f"{incomplete}, which goes with it, stays" in whys
    dropped = events.column(
        "SELECT lower FROM housekeeping.run_window WHERE walk = 'drop' ORDER BY number"
    )
    assert dropped == [f"{JANUARY}_lines", JANUARY]


def test_a_dry_run_lists_what_would_go_and_what_would_not_and_changes_nothing(
    archived: Database, around: Surroundings
) -> None:
    archived.run("DELETE FROM old_2024_02 WHERE id = 1")
    before = archived.rows("SELECT * FROM housekeeping.archive_table ORDER BY 1")
    runs = archived.count("housekeeping.run")

    result = expire(expiring(archived), around, dry_run=True)

    assert (result.stop_reason, result.total) == (StopReason.DRY_RUN, 0)
    assert result.plan is not None
    assert result.plan["would_drop"] == 1
    assert entry(result, JANUARY)["done"] == "would be dropped"
    assert entry(result, FEBRUARY)["done"] == "would stay"
    assert "holds 19 rows" in entry(result, FEBRUARY)["why"]
    assert len(there(archived)) == 2
    assert archived.rows("SELECT * FROM housekeeping.archive_table ORDER BY 1") == before
    assert archived.count("housekeeping.run") == runs

    young = expire(expiring(archived, keep_for=timedelta(days=36_000)), around, dry_run=True)
    assert {each["done"] for each in young.tables} == {"young"}


def test_check_tells_how_many_would_go(archived: Database) -> None:
    inspected = inspect_archive_expiry(expiring(archived))
    assert "2 of 2 dated tables would go, 40 rows" in inspected.told


def test_a_database_without_a_ledger_has_nothing_to_drop(
    events: Database, around: Surroundings
) -> None:
    assert inspect_archive_expiry(expiring(events)).warnings == ()
    assert expire(expiring(events), around, dry_run=True).tables == ()
    assert expire(expiring(events), around).success


def test_a_source_nobody_knows_is_refused(archived: Database, around: Surroundings) -> None:
    with pytest.raises(TableMissing, match="Did you mean 'events'"):
        expire(expiring(archived, source=TableName("evnts")), around)


def test_archives_of_a_source_that_is_gone_still_go(
    archived: Database, around: Surroundings
) -> None:
    archived.run("DROP TABLE events")
    assert expire(expiring(archived), around).total == 2


def test_all_archives_of_a_database_but_those_another_policy_answers_for(
    archived: Database, around: Surroundings
) -> None:
    archived.run("CREATE TABLE orders (id int PRIMARY KEY, created_at timestamptz)")
    archived.run("INSERT INTO orders VALUES (1, '2024-01-05')")
    run(archiving(archived, "orders", archive=ArchiveTo(prefix="old_orders")), around)

    but = expiring(archived, source=None, but=(TableName("events"),))
    assert expire(but, around).total == 1
    assert there(archived) == [JANUARY, FEBRUARY]
    assert expire(replace(but, but=()), around).total == 2


def test_nothing_goes_while_an_archive_run_has_the_source(
    archived: Database, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("housekeeping.operations.archives.expiry._LEASE_PATIENCE_SECONDS", 0)
    other = Lease(around.redis, f"{place(archived.url)}/public.events", str(uuid4()), 30)
    assert other.acquire()

    result = expire(expiring(archived), around)
    assert (result.stop_reason, result.exit_code, result.success) == (StopReason.LOCKED, 3, False)
    assert "another run works on public.events" in entry(result, JANUARY)["why"]
    assert len(there(archived)) == 2

    other.release()
    assert expire(expiring(archived), around).total == 2


def test_a_pause_and_a_limit_end_it_early(archived: Database, around: Surroundings) -> None:
    around.control.pause("tasks.database.drop_expired_archives")
    assert expire(expiring(archived), around).stop_reason is StopReason.PAUSED
    around.control.resume(None)

    result = expire(expiring(archived), around, limit=1)
    assert (result.stop_reason, result.total) == (StopReason.ROW_BUDGET, 1)
    assert there(archived) == [FEBRUARY]


def test_tables_that_would_go_while_their_rows_still_come_are_refused(
    archived: Database, around: Surroundings
) -> None:
    policy = expiring(archived, archived_after=timedelta(days=365))
    for look in (
        lambda: expire(policy, around),
        lambda: expire(policy, around, dry_run=True),
        lambda: inspect_archive_expiry(policy),
    ):
        with pytest.raises(ArchiveKeptTooShort, match="Give a keep_for of more than 365 days"):
            look()
    assert len(there(archived)) == 2


def test_it_works_in_its_hours_only(archived: Database, around: Surroundings) -> None:
    now = archived.one("SELECT now() AT TIME ZONE 'UTC'")
    opening = Opening(*((now + timedelta(hours=hours)).time() for hours in (2, 3)))
    closed = replace(BRISK, only_between=MaintenanceHours((opening,)))
    result = expire(expiring(archived, pace=closed), around)
    assert (result.stop_reason, result.success, result.total) == (StopReason.THROTTLED, False, 0)
    assert len(there(archived)) == 2
