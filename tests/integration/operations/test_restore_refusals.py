"""What stays in the archive when a month is put back, and what is refused before a row moves."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.policies.errors import (
    ExportDamaged,
    ExportUnreachable,
    NoSuchArchive,
    RestoreRefused,
)
from tests.integration.archived import (
    JANUARY,
    LIVE_AND_CSV,
    archive_two_months,
    archiving,
    expire,
    expiring,
    exporting,
    ledger_holds_what_is_there,
    prepared,
    put_back,
    restoring,
)
from tests.integration.database import Database
from tests.integration.runs import DAYS, run


@LIVE_AND_CSV
def test_a_row_whose_key_is_taken_stays_in_the_archive(
    archived: Database, around: Surroundings, tmp_path: Path, kind: str
) -> None:
    policy = prepared(archived, around, tmp_path, kind)
    archived.run("INSERT INTO events VALUES (2, now(), 'new', 'somebody else''s')")

    result = put_back(policy, around)

    assert (result.success, result.exit_code) == (False, 2)
    assert (result.total, result.left_behind, result.details["key_taken"]) == (19, 1, 1)
    assert archived.one("SELECT note FROM events WHERE id = 2") == "somebody else's"
    if kind == "live":
        assert archived.column("SELECT id FROM old_2024_01") == [2]
        assert ledger_holds_what_is_there(archived)


@LIVE_AND_CSV
def test_another_unique_constraint_keeps_a_row_too(
    archived: Database, around: Surroundings, tmp_path: Path, kind: str
) -> None:
    policy = prepared(archived, around, tmp_path, kind)
    archived.run("ALTER TABLE events ADD UNIQUE (note)")
    archived.run("INSERT INTO events VALUES (-1, now(), 'new', 'note 4')")
    result = put_back(policy, around)
    assert (result.total, result.details["key_taken"]) == (19, 1)


@LIVE_AND_CSV
def test_a_row_the_table_refuses_is_left_and_the_others_come(
    archived: Database, around: Surroundings, tmp_path: Path, kind: str
) -> None:
    policy = prepared(archived, around, tmp_path, kind)
    archived.run("ALTER TABLE events ADD CHECK (id NOT IN (4, 6))")

    result = put_back(policy, around)

    assert (result.total, result.left_behind, result.details["refused"]) == (18, 2, 2)
    assert any("violates check constraint" in warning for warning in result.warnings)
    assert ledger_holds_what_is_there(archived)


def test_what_was_dropped_without_an_export_is_told(
    archived: Database, around: Surroundings
) -> None:
    expire(expiring(archived), around)
    with pytest.raises(RestoreRefused, match="without an export"):
        put_back(restoring(archived), around)


def test_a_wrong_name_is_refused(archived: Database, around: Surroundings, tmp_path: Path) -> None:
    with pytest.raises(RestoreRefused, match=r"Did you mean 'public\.old_2024_01'"):
        put_back(restoring(archived, relation="public.old_2042_01"), around)
    with pytest.raises(RestoreRefused, match="knows no archived table"):
        put_back(restoring(archived, relation="events"), around)
    with pytest.raises(ExportUnreachable, match="no such file; is its folder mounted"):
        put_back(restoring(archived, manifest_url=f"{tmp_path}/no.manifest.json"), around)
    (tmp_path / "x.manifest.json").write_text("{}")
    with pytest.raises(ExportDamaged, match="no manifest"):
        put_back(restoring(archived, manifest_url=f"{tmp_path}/x.manifest.json"), around)


def test_a_month_that_was_never_archived_is_answered_with_those_that_can_come_back(
    archived: Database, around: Surroundings, tmp_path: Path
) -> None:
    before_march = datetime(2024, 2, 1, tzinfo=UTC)
    for name in ("old_2023_07", "public.old_2023_07", "old", "events", "public.events"):
        with pytest.raises(NoSuchArchive) as refused:
            put_back(restoring(archived, relation=name), around)
        assert refused.value.message.endswith(
            "What can be put back of public.events: public.old_2024_02, public.old_2024_01"
        )
    gone = exporting(archived, tmp_path, keep_for=datetime.now(UTC) - before_march - DAYS)
    assert expire(gone, around).total == 1
    with pytest.raises(
        NoSuchArchive, match=r"public\.old_2024_02, public\.old_2024_01 \(exported\)$"
    ):
        put_back(restoring(archived, relation="old_2023_07"), around)
    expire(expiring(archived), around)
    with pytest.raises(
        NoSuchArchive, match=r"of public\.events: public\.old_2024_01 \(exported\)$"
    ):
        put_back(restoring(archived, relation="old_2023_07"), around)


def test_of_many_months_the_newest_ten_are_listed(events: Database, around: Surroundings) -> None:
    events.run(
        "INSERT INTO events SELECT i, timestamptz '2020-01-10' + i * interval '1 month', 'done', ''"
        " FROM generate_series(0, 23) i"
    )
    run(archiving(events), around)
    with pytest.raises(NoSuchArchive) as refused:
        put_back(restoring(events, relation="old_2019_01"), around)
    listed = refused.value.message.partition("What can be put back of public.events: ")[2]
    assert listed.startswith("public.old_2021_12, public.old_2021_11, ")
    assert listed.endswith("public.old_2021_03 \N{HORIZONTAL ELLIPSIS} and 14 more")


def test_where_nothing_was_archived_that_is_said(database: Database, around: Surroundings) -> None:
    with pytest.raises(NoSuchArchive, match="Nothing that was archived in this database"):
        put_back(restoring(database), around)


def test_a_damaged_export_brings_no_row(
    archived: Database, around: Surroundings, tmp_path: Path
) -> None:
    policy = prepared(archived, around, tmp_path, "csv")
    file = tmp_path / f"{JANUARY}.csv.gz"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ExportDamaged, match="If it was dropped,"):
        put_back(policy, around)
    assert archived.count("events") == 0


@LIVE_AND_CSV
def test_a_column_that_is_gone_is_left_out_only_when_asked_for(
    archived: Database, around: Surroundings, tmp_path: Path, kind: str
) -> None:
    policy = prepared(archived, around, tmp_path, kind)
    archived.run("ALTER TABLE events DROP COLUMN note, ADD COLUMN more int DEFAULT 7")
    with pytest.raises(RestoreRefused, match=r"no column 'note' any more; --drop-columns"):
        put_back(policy, around)

    result = put_back(replace(policy, drop_columns=True), around)
    assert result.total == 20
    assert archived.column("SELECT DISTINCT more FROM events") == [7]
    assert any(
        "note of the archive is left out; rows that" in warning for warning in result.warnings
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("ALTER COLUMN created_at TYPE date", "is date now and was timestamp with time zone"),
        ("ALTER COLUMN id TYPE int", "is integer now and was bigint"),
        ("ADD COLUMN must text NOT NULL", "is NOT NULL and has no default"),
        ("RENAME TO other", "its source public.events is not there any more"),
    ],
)
def test_a_source_that_no_longer_takes_the_rows_as_they_are_is_refused(
    archived: Database, around: Surroundings, change: str, told: str
) -> None:
    archived.run(f"ALTER TABLE events {change}")
    with pytest.raises(RestoreRefused, match=told):
        put_back(restoring(archived), around)
    assert archived.count("old_2024_01") == 20


def test_who_may_not_insert_is_told_the_grant_to_ask_for(
    archived: Database, around: Surroundings
) -> None:
    archived.run("DROP ROLE IF EXISTS mover; CREATE ROLE mover LOGIN")
    archived.run("GRANT pg_read_all_data TO mover; ALTER TABLE old_2024_01 OWNER TO mover")
    as_mover = Database(archived.url.replace("postgres@", "mover@", 1), archived.version)
    try:
        with pytest.raises(RestoreRefused, match=r'GRANT INSERT ON "public"\."events" TO "mover"'):
            put_back(restoring(as_mover), around, dry_run=True)
    finally:
        archived.run("REASSIGN OWNED BY mover TO postgres; DROP OWNED BY mover; DROP ROLE mover")


@pytest.mark.parametrize(
    ("then", "now"),
    [("varchar(9)", "text"), ("varchar(9)", "varchar(20)"), ("smallint", "bigint")],
)
def test_a_wider_column_takes_them(
    events: Database, around: Surroundings, then: str, now: str
) -> None:
    events.run(f"ALTER TABLE events ADD what {then} DEFAULT '12'")
    archive_two_months(events, around)
    events.run(f"ALTER TABLE events ALTER COLUMN what TYPE {now}")
    assert put_back(restoring(events), around).success
    assert events.column("SELECT DISTINCT what::text FROM events") == ["12"]


def test_a_trigger_is_told_and_what_it_keeps_out_stays(
    archived: Database, around: Surroundings
) -> None:
    archived.run(
        "CREATE FUNCTION choosy() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN IF NEW.id = 2 THEN RETURN NULL; END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER choosy BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION choosy()"
    )
    result = put_back(restoring(archived), around)
    assert (result.total, result.left_behind) == (19, 1)
    assert archived.column("SELECT id FROM old_2024_01") == [2]
    assert any("trigger choosy" in warning for warning in result.warnings)


@LIVE_AND_CSV
def test_without_a_key_a_row_a_trigger_keeps_out_is_not_lost(
    database: Database, around: Surroundings, tmp_path: Path, kind: str
) -> None:
    database.run("CREATE TABLE events (created_at timestamptz, note text)")
    database.run(
        "INSERT INTO events SELECT '2024-01-10', 'note ' || i FROM generate_series(1, 9) i"
    )
    run(archiving(database), around)
    policy = prepared(database, around, tmp_path, kind)
    database.run(
        "CREATE FUNCTION choosy() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN IF NEW.note = 'note 4' THEN RETURN NULL; END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER choosy BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION choosy()"
    )

    result = put_back(policy, around)

    assert (result.total, result.details["refused"], database.count("events")) == (8, 1, 8)
    if kind == "live":
        assert database.column("SELECT note FROM old_2024_01") == ["note 4"]

    assert not put_back(policy, around).success
    database.run("DROP TRIGGER choosy ON events")
    assert put_back(policy, around).total == 1
    assert sorted(database.column("SELECT note FROM events")) == [f"note {i}" for i in range(1, 10)]
