"""Archived rows go back where they came from: all of them, once, and over nobody else's."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.policies.archives import ExportTo
from housekeeping.policies.errors import RestoreRefused
from housekeeping.policies.purge import TableName
from housekeeping.policies.result import StopReason
from housekeeping.stores.postgres.archives.putting_back import PuttingBack
from housekeeping.stores.postgres.connection import place
from housekeeping.stores.redis.lease import Lease
from tests.integration.archived import (
    JANUARY,
    LIVE_AND_CSV,
    LIVE_AND_EXPORTED,
    ROWS,
    archiving,
    entry,
    expire,
    exporting,
    images,
    ledger_holds_what_is_there,
    prepared,
    put_back,
    restoring,
    there,
)
from tests.integration.archives import EVERY_TYPE
from tests.integration.database import Database
from tests.integration.runs import SMALL_WINDOWS, run

PARENT_AND_CHILD = (
    "CREATE TABLE jobs (id int PRIMARY KEY); INSERT INTO jobs VALUES (1), (2);"
    "ALTER TABLE events ADD job int REFERENCES jobs ON DELETE CASCADE; CREATE INDEX ON events (job);"
    "CREATE TABLE lines (id int PRIMARY KEY, event bigint NOT NULL REFERENCES events ON DELETE CASCADE);"
    "CREATE INDEX ON lines (event);"
    "INSERT INTO events (id, created_at, job)"
    " SELECT i, '2024-01-05', 1 + i % 2 FROM generate_series(1, 40) i;"
    "INSERT INTO lines SELECT i, 1 + i % 40 FROM generate_series(1, 400) i"
)


@LIVE_AND_EXPORTED
def test_a_month_comes_back_as_it_was(
    events: Database, around: Surroundings, tmp_path: Path, kind: str
) -> None:
    events.run(
        "INSERT INTO events SELECT i, '2024-01-10', 'done', 'note ' || i FROM generate_series(1, 1300) i"
    )
    events.run("UPDATE events SET note = NULL WHERE id = 3")
    events.run("UPDATE events SET note = '' WHERE id = 5")
    before = events.rows(ROWS)
    run(archiving(events), around)
    assert events.count("events") == 0

    policy = prepared(events, around, tmp_path, kind, pace=SMALL_WINDOWS)
    result = put_back(policy, around)

    assert result.success, result
    assert result.as_dict()["total_restored"] == result.details["restored"] == 1_300
    assert events.rows(ROWS) == before
    assert result.batches > 1
    assert ledger_holds_what_is_there(events)
    assert entry(result, JANUARY)["into"] == "public.events"


@LIVE_AND_EXPORTED
def test_every_type_comes_back_to_the_byte(
    database: Database, around: Surroundings, tmp_path: Path, kind: str
) -> None:
    database.run(EVERY_TYPE.replace("now() - i *", "timestamptz '2024-01-20 12:00+00' - i % 90 *"))
    columns = ", ".join(
        '"{}"'.format(name.replace('"', '""').replace("%", "%%"))
        for name in database.column(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'everything'::regclass AND attnum > 0"
        )
    ).replace("%%", "%")
    before = images(database, "everything", columns=columns)
    run(archiving(database, "everything"), around)
    left = database.count("everything")
    in_january = database.count("old_2024_01")
    assert in_january == 2_000
    if kind == "live":
        policy = restoring(database)
    else:
        source = TableName("everything")
        assert expire(exporting(database, tmp_path, kind, source=source), around).success
        policy = restoring(database, manifest_url=f"{tmp_path}/{JANUARY}.manifest.json")

    result = put_back(policy, around)

    assert result.success, result
    assert database.count("everything") == left + in_january
    back = images(database, "everything", columns=columns)
    assert {key: before[key] for key in back} == back
    database.run("INSERT INTO everything (created_at) VALUES (now())")  # its identity goes on


@LIVE_AND_CSV
def test_a_second_time_brings_nothing_twice(
    archived: Database, around: Surroundings, tmp_path: Path, kind: str
) -> None:
    policy = prepared(archived, around, tmp_path, kind)
    assert put_back(policy, around).total == 20

    again = put_back(policy, around)

    assert (again.success, again.total) == (True, 0)
    assert again.details["already_there"] == (0 if kind == "live" else 20)
    assert archived.count("events") == 20


@LIVE_AND_CSV
def test_parents_come_before_their_children(
    events: Database, around: Surroundings, tmp_path: Path, kind: str
) -> None:
    events.run(PARENT_AND_CHILD)
    run(archiving(events), around)
    assert events.count("lines") == 0

    result = put_back(prepared(events, around, tmp_path, kind), around)

    assert (result.success, result.total) == (True, 440)
    assert (events.count("events"), events.count("lines")) == (40, 400)


@LIVE_AND_CSV
def test_rows_whose_parent_is_gone_stay_and_so_do_theirs(
    events: Database, around: Surroundings, tmp_path: Path, kind: str
) -> None:
    events.run(PARENT_AND_CHILD)
    run(archiving(events), around)
    policy = prepared(events, around, tmp_path, kind)
    events.run("DELETE FROM jobs WHERE id = 2")

    result = put_back(policy, around)

    assert (result.total, result.details["parent_missing"]) == (220, 220)
    assert not result.success
    assert ledger_holds_what_is_there(events)


@LIVE_AND_CSV
def test_a_row_that_refers_to_one_of_its_own_table_comes_after_it(
    events: Database, around: Surroundings, tmp_path: Path, kind: str
) -> None:
    # The latest row is the parent of all: it comes last in every order.
    events.run(
        "ALTER TABLE events ADD parent bigint REFERENCES events; CREATE INDEX ON events (parent)"
    )
    events.run("INSERT INTO events (id, created_at) VALUES (2000, '2024-01-05')")
    events.run(
        "INSERT INTO events (id, created_at, parent)"
        " SELECT i, '2024-01-05', CASE WHEN i < 900 THEN 2000 END FROM generate_series(1, 1200) i"
    )
    while run(archiving(events), around).total:
        pass
    policy = prepared(events, around, tmp_path, kind)
    result = put_back(policy, around)
    assert (result.success, events.count("events")) == (True, 1_201)


def test_killed_in_the_middle_it_goes_on(
    events: Database, around: Surroundings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events.run("INSERT INTO events SELECT i, '2024-01-10' FROM generate_series(1, 1300) i")
    run(archiving(events), around)
    policy = prepared(events, around, tmp_path, "csv")
    insert, calls = PuttingBack.insert, []

    def dying(self: PuttingBack, *given: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise SystemExit
        return insert(self, *given)

    with monkeypatch.context() as killed:
        killed.setattr(PuttingBack, "insert", dying)
        with pytest.raises(SystemExit):
            put_back(policy, around)
    assert events.count("events") == 500
    around.redis.flushall()

    result = put_back(policy, around)

    assert (result.success, result.total, result.details["already_there"]) == (True, 800, 500)
    assert events.count("events") == 1_300
    first = events.one("SELECT error FROM housekeeping.run WHERE operation = 'archives.restore'"
                       " ORDER BY started_at LIMIT 1")  # fmt: skip
    assert "a later run went on" in first


@LIVE_AND_CSV
def test_rows_without_a_key_come_back_once(
    database: Database, around: Surroundings, tmp_path: Path, kind: str
) -> None:
    database.run("CREATE TABLE events (created_at timestamptz, note text)")
    database.run("INSERT INTO events SELECT '2024-01-10', 'same' FROM generate_series(1, 700)")
    run(archiving(database), around)
    policy = prepared(database, around, tmp_path, kind)

    assert put_back(policy, around).total == 700
    assert put_back(policy, around).total == 0
    assert database.count("events") == 700


def test_by_its_name_a_dropped_month_comes_back_from_where_it_was_exported_to(
    archived: Database, around: Surroundings, tmp_path: Path
) -> None:
    expire(exporting(archived, tmp_path, "jsonl"), around)
    places = (ExportTo(url=str(tmp_path), format="csv"),)

    with pytest.raises(RestoreRefused, match="where no export_to of this installation leads"):
        put_back(restoring(archived, relation="old_2024_01"), around)
    assert put_back(restoring(archived, relation="old_2024_01", places=places), around).total == 20


def test_no_purge_runs_meanwhile_and_the_tasks_that_would_take_the_rows_again_are_named(
    archived: Database, around: Surroundings
) -> None:
    other = Lease(around.redis, f"{place(archived.url)}/public.events", str(uuid4()), 30)
    assert other.acquire()
    assert put_back(restoring(archived), around).stop_reason is StopReason.LOCKED
    other.release()

    takers = (("events", "tasks.tables.archive"), ("orders", "tasks.tables.purge"))
    result = put_back(restoring(archived, takers=takers), around)
    assert result.total == 20
    (warning,) = result.warnings
    assert "tasks.tables.archive will take these rows again" in warning
    assert "housekeeping pause tables.archive" in warning

    around.control.pause("tasks.tables.archive")
    assert put_back(restoring(archived, takers=takers), around).warnings == ()


def test_a_dry_run_changes_nothing(
    archived: Database, around: Surroundings, tmp_path: Path
) -> None:
    for kind in ("live", "csv"):
        result = put_back(prepared(archived, around, tmp_path, kind), around, dry_run=True)
        assert result.stop_reason is StopReason.DRY_RUN
        assert result.plan is not None
        assert result.plan["would_restore"] == 20
        assert archived.count("events") == 0


def test_a_dry_run_tells_which_rows_would_stay(
    events: Database, around: Surroundings, tmp_path: Path
) -> None:
    events.run(PARENT_AND_CHILD)
    run(archiving(events), around)
    events.run("DELETE FROM jobs WHERE id = 2")
    events.run("INSERT INTO events (id, created_at, job) VALUES (4, now(), 1)")

    told = put_back(restoring(events), around, dry_run=True)

    assert told.plan is not None
    # The 400 lines of the child are not matched with parents that would come back before them.
    assert told.plan["details"] == {"restored": 419, "key_taken": 1, "parent_missing": 20}
    assert (told.plan["would_restore"], told.plan["counted"]) == (419, "at_most")
    assert (entry(told, JANUARY)["rows"], entry(told, JANUARY)["key_taken"]) == (19, 1)
    assert told.exit_code == 0
    done = put_back(restoring(events), around)
    assert done.details["restored"] <= 419
    again = put_back(restoring(events), around, dry_run=True)
    assert again.plan is not None
    assert again.plan["details"]["parent_missing"] == 20


def test_what_was_put_back_is_archived_and_exported_again(
    archived: Database, around: Surroundings, tmp_path: Path
) -> None:
    assert put_back(restoring(archived), around).success
    assert run(archiving(archived), around).total == 20
    assert expire(exporting(archived, tmp_path), around).success
    assert there(archived) == []
