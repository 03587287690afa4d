"""What an archive refuses, and rows it meets a second time: nothing is lost, nothing kept twice."""

from dataclasses import replace

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.policies.archive import ArchiveIndex, ArchiveTo
from housekeeping.policies.errors import PolicyRefused, PrivilegeMissing
from housekeeping.policies.purge import PurgePolicy
from tests.integration.archives import archived, archiving, fill, to
from tests.integration.database import Database
from tests.integration.runs import run


def test_rows_put_back_are_taken_again_without_a_duplicate(
    events: Database, around: Surroundings
) -> None:
    fill(events)
    first = run(archiving(events), around)
    before = archived(events)
    name = sorted(before)[1]
    events.run(f"INSERT INTO events SELECT id, created_at, status, note FROM {name}")
    again = run(archiving(events), around)
    assert (again.total, again.success) == (before[name], True)
    assert archived(events) == before
    assert first.total == sum(before.values())


def test_a_row_whose_key_the_archive_holds_with_other_contents_stays(
    events: Database, around: Surroundings
) -> None:
    events.run(
        "INSERT INTO events VALUES (1, '2024-01-10', 'a', 'old'), (2, '2024-01-11', 'a', 'x')"
    )
    run(archiving(events), around)
    events.run(
        "INSERT INTO events VALUES (1, '2024-01-10', 'a', 'new'), (3, '2024-01-12', 'a', 'y')"
    )
    result = run(archiving(events), around)
    assert (result.total, result.left_behind, result.success) == (1, 1, False)
    assert events.rows("SELECT id, note FROM events") == [(1, "new")]
    assert events.rows("SELECT id, note FROM events_archive_2024_01 ORDER BY id") == [
        (1, "old"), (2, "x"), (3, "y"),
    ]  # fmt: skip
    assert "with other contents" in events.one(
        "SELECT error FROM housekeeping.run_window WHERE error IS NOT NULL"
    )


def test_the_archive_grows_with_its_source(events: Database, around: Surroundings) -> None:
    events.run("INSERT INTO events VALUES (1, '2024-01-10')")
    run(archiving(events), around)
    events.run("ALTER TABLE events ADD \"New one\" text[] NOT NULL DEFAULT ARRAY['d'], DROP status")
    events.run("INSERT INTO events VALUES (2, '2024-01-11', 'n', ARRAY['e'])")
    assert run(archiving(events), around).success
    assert events.rows('SELECT id, "New one" FROM events_archive_2024_01 ORDER BY id') == [
        (1, None), (2, ["e"]),
    ]  # fmt: skip


def test_a_column_whose_type_has_changed_stops_the_archive_with_a_remedy(
    events: Database, around: Surroundings
) -> None:
    events.run("INSERT INTO events VALUES (1, '2024-01-10')")
    run(archiving(events), around)
    events.run("ALTER TABLE events ALTER note TYPE varchar(99)")
    events.run("INSERT INTO events VALUES (2, '2024-03-11')")
    with pytest.raises(PolicyRefused, match="character varying") as refused:
        run(archiving(events), around)
    assert events.count("events") == 1
    remedy = refused.value.message.partition("agree: ")[2].partition(", or")[0]
    events.run(remedy)
    assert run(archiving(events), around).success


@pytest.mark.parametrize("shape", ["CREATE TABLE", "CREATE VIEW"])
def test_a_table_that_is_not_ours_is_never_written_to(
    events: Database, around: Surroundings, shape: str
) -> None:
    events.run("INSERT INTO events VALUES (1, '2024-01-10')")
    events.run(f"{shape} events_archive_2024_01 AS SELECT * FROM events WHERE id > 1")
    result = archived_or_refused(archiving(events), around)
    assert "was not made by housekeeping" in result
    assert events.count("events") == 1
    assert events.count("events_archive_2024_01") == 0


def archived_or_refused(policy: PurgePolicy, around: Surroundings) -> str:
    with pytest.raises(PolicyRefused) as refused:
        run(policy, around)
    return refused.value.message


def test_two_tables_do_not_share_an_archive(events: Database, around: Surroundings) -> None:
    events.run("CREATE TABLE other (LIKE events INCLUDING ALL)")
    for table in ("events", "other"):
        events.run(f"INSERT INTO {table} VALUES (1, '2024-01-10')")
    run(archiving(events), around)
    assert "holds rows of public.events" in archived_or_refused(archiving(events, "other"), around)
    assert events.count("other") == 1


def test_grandchildren_that_would_be_lost_are_refused(
    events: Database, around: Surroundings
) -> None:
    events.run(
        "CREATE TABLE lines (id int PRIMARY KEY, event bigint REFERENCES events ON DELETE CASCADE);"
        "CREATE INDEX ON lines (event);"
        "CREATE TABLE words (line int REFERENCES lines ON DELETE CASCADE); CREATE INDEX ON words (line)"
    )
    assert "archived nowhere" in archived_or_refused(archiving(events), around)


@pytest.mark.parametrize(
    ("archive", "told"),
    [
        (to("x" * 60), "give a shorter prefix"),
        (to(schema="cold"), 'CREATE SCHEMA "cold" AUTHORIZATION'),
        (to(indexes=(ArchiveIndex(columns=("nope",)),)), "names the column 'nope'"),
    ],
)
def test_what_could_not_be_made_is_refused(
    events: Database, around: Surroundings, archive: ArchiveTo, told: str
) -> None:
    message = archived_or_refused(archiving(events, archive=archive), around)
    assert told.lower() in message.lower()


def test_a_role_that_may_not_make_tables_is_told_the_grant(
    events: Database, around: Surroundings
) -> None:
    database = events.one("SELECT quote_ident(current_database())")
    events.run(
        "CREATE SCHEMA cold; CREATE ROLE mover LOGIN; GRANT SELECT, UPDATE, DELETE ON events TO mover;"
        f"GRANT CREATE ON DATABASE {database} TO mover"
    )
    policy = replace(
        archiving(events, archive=to(schema="cold")),
        database_url=events.url.replace("postgres@", "mover@"),
    )
    try:
        with pytest.raises(PrivilegeMissing, match="GRANT USAGE, CREATE ON SCHEMA"):
            run(policy, around)
    finally:
        events.run("DROP OWNED BY mover; DROP ROLE mover")
