"""An exported partition comes back: into the table it was detached from, or says what to do."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.policies.archives import ExportTo
from housekeeping.policies.errors import RestoreRefused
from housekeeping.policies.purge import PartitionCare
from housekeeping.stores.postgres import ledger_schema
from housekeeping.stores.postgres.connection import connected
from housekeeping.stores.postgres.ledger_migrations import MIGRATIONS
from tests.integration.archived import put_back, restoring
from tests.integration.database import Database
from tests.integration.exported_partitions import (
    OLDEST,
    back,
    due,
    images,
    partition_again,
)
from tests.integration.partitions import fill, partitioned
from tests.integration.runs import policy_on, run

NOWHERE = "no partition of public.events would take its rows"


def at_once(folder: Path) -> PartitionCare:
    """Export what was detached in the next run."""
    return PartitionCare(grace=timedelta(0), export=ExportTo(url=str(folder), format="jsonl"))


@pytest.fixture
def dropped(database: Database, around: Surroundings, tmp_path: Path) -> Database:
    """A database whose partitions 4 to 9 were exported and dropped."""
    assert run(due(database, around, tmp_path), around).details["partitions_dropped"] == 6
    return database


def test_without_a_partition_for_its_rows_it_is_refused_with_the_statement_that_makes_one(
    dropped: Database, around: Surroundings, tmp_path: Path
) -> None:
    for dry_run in (True, False):
        with pytest.raises(RestoreRefused, match=NOWHERE) as refused:
            back(dropped, around, tmp_path, dry_run=dry_run)
    assert dropped.count("events") == 36
    assert dropped.count("housekeeping.run WHERE operation = 'archives.restore'") == 0

    statement = refused.value.message.splitlines()[-1]
    assert statement.startswith(
        'CREATE TABLE "public"."events_9" PARTITION OF "public"."events" FOR'
    )
    dropped.run(statement)

    result = back(dropped, around, tmp_path)
    assert (result.success, result.total) == (True, 10)
    assert dropped.count(OLDEST) == 10


def a_default(database: Database) -> None:
    database.run("CREATE TABLE rest PARTITION OF events DEFAULT")


def a_wider_one(database: Database) -> None:
    end = database.one("SELECT (date_trunc('day', now()) - interval '60 days')::text")
    database.run(
        f"CREATE TABLE ancient PARTITION OF events FOR VALUES FROM ('2001-01-01') TO ('{end}')"
    )


def two_halves(database: Database) -> None:
    middle = database.one("SELECT (date_trunc('day', now()) - interval '90 days')::text")
    last = database.one("SELECT (date_trunc('day', now()) - interval '85 days')::text")
    database.run(
        f"CREATE TABLE one PARTITION OF events FOR VALUES FROM ('2001-01-01') TO ('{middle}')"
        " PARTITION BY HASH (id);"
        "CREATE TABLE one_0 PARTITION OF one FOR VALUES WITH (MODULUS 1, REMAINDER 0);"
        f"CREATE TABLE two PARTITION OF events FOR VALUES FROM ('{middle}') TO ('{last}')"
    )


@pytest.mark.parametrize("room", [a_default, a_wider_one, two_halves])
def test_any_partitions_that_take_all_its_rows_will_do(
    dropped: Database, around: Surroundings, tmp_path: Path, room: Callable[[Database], None]
) -> None:
    room(dropped)
    assert back(dropped, around, tmp_path).total == 10
    assert dropped.count("events") == 46


def test_partitions_that_take_some_of_its_rows_will_not(
    dropped: Database, around: Surroundings, tmp_path: Path
) -> None:
    two_halves(dropped)
    for change in ("DROP TABLE two", "DROP TABLE one; DROP TABLE IF EXISTS two"):
        dropped.run(change)
        with pytest.raises(RestoreRefused, match=NOWHERE):
            back(dropped, around, tmp_path)
    assert dropped.count("events") == 36


def test_by_its_name_it_comes_back_from_where_it_was_exported_to(
    dropped: Database, around: Surroundings, tmp_path: Path
) -> None:
    partition_again(dropped)
    named = restoring(dropped, relation=OLDEST)

    with pytest.raises(RestoreRefused, match="where no export_to of this installation leads"):
        put_back(named, around)
    places = (ExportTo(url=str(tmp_path), format="jsonl"),)
    assert put_back(replace(named, places=places), around).total == 10
    full = replace(named, places=places, relation=f"public.{OLDEST}")
    assert put_back(full, around).success
    with pytest.raises(RestoreRefused, match="Did you mean 'events_9'"):
        put_back(replace(named, relation="events_99"), around)


def test_one_that_is_still_there_is_attached_not_restored(
    database: Database, around: Surroundings, tmp_path: Path
) -> None:
    due(database, around, tmp_path)

    with pytest.raises(RestoreRefused, match="it was detached and is still there") as refused:
        put_back(restoring(database, relation=OLDEST), around)

    database.run(refused.value.message.splitlines()[-1])
    assert database.count("events") == 46


def test_one_that_was_dropped_without_an_export_is_told(
    database: Database, around: Surroundings, tmp_path: Path
) -> None:
    policy = due(database, around, tmp_path)
    run(replace(policy, partitions=replace(policy.partitions, export=None)), around)

    with pytest.raises(RestoreRefused, match="without an export"):
        put_back(restoring(database, relation=OLDEST), around)


def test_below_a_level_between_rows_go_back_under_the_lease_of_the_whole_table(
    database: Database, around: Surroundings, tmp_path: Path
) -> None:
    database.run(
        "CREATE TABLE events (id bigint, created_at timestamptz, area text, PRIMARY KEY"
        " (id, created_at, area)) PARTITION BY LIST (area);"
        "CREATE TABLE events_eu PARTITION OF events FOR VALUES IN ('eu')"
        " PARTITION BY RANGE (created_at);"
        "CREATE TABLE eu_old PARTITION OF events_eu FOR VALUES FROM ('2001-01-01') TO ('2002-01-01');"
        "CREATE TABLE eu_new PARTITION OF events_eu FOR VALUES FROM ('2002-01-01') TO (MAXVALUE);"
        "INSERT INTO events SELECT i, '2001-06-01', 'eu' FROM generate_series(1, 700) i"
    )
    before = images(database)
    policy = policy_on(database, partitions=at_once(tmp_path))
    run(policy, around)
    assert run(policy, around).details["partitions_dropped"] == 1
    url = f"{tmp_path}/public.eu_old.manifest.json"

    with pytest.raises(RestoreRefused, match=r'PARTITION OF "public"\."events_eu" FOR') as refused:
        put_back(restoring(database, manifest_url=url), around)
    database.run(refused.value.message.splitlines()[-1])
    takers = (("events", "tasks.tables.purge"),)
    result = put_back(restoring(database, manifest_url=url, takers=takers), around)

    assert (result.success, result.total, images(database)) == (True, 700, before)
    assert any("tasks.tables.purge will take these rows again" in told for told in result.warnings)
    again = put_back(restoring(database, manifest_url=url), around)
    assert (again.success, again.total, again.details["already_there"]) == (True, 0, 700)


def test_a_ledger_from_before_there_were_exports_is_read_and_brought_up_to_date(
    database: Database, around: Surroundings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partitioned(database)
    fill(database)
    with monkeypatch.context() as earlier, connected(database.url, "hk:test") as connection:
        earlier.setattr(ledger_schema, "MIGRATIONS", MIGRATIONS[:6])
        ledger_schema.ensure_ledger(connection)
    database.run(
        "INSERT INTO housekeeping.detached_partition (root, parent_schema, parent_name, relation_oid,"
        " relation_schema, relation_name, bounds, rows, bytes, state, policy, run_id, dropped_at)"
        " VALUES ('public.events', 'public', 'events', 1, 'public', 'events_10', '', 1, 1, 'dropped',"
        " 'p', gen_random_uuid(), now())"
    )
    with pytest.raises(RestoreRefused, match="without an export"):
        put_back(restoring(database, relation="events_10"), around, dry_run=True)
    assert database.one("SELECT max(version) FROM housekeeping.migration") == 6
    policy = policy_on(database, partitions=at_once(tmp_path))
    assert run(policy, around, dry_run=True).success

    assert run(policy, around).details["partitions_detached"] == 6
    assert run(policy, around).details["partitions_exported"] == 6
