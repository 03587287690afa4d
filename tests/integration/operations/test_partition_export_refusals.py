"""Where no partition could ever be exported, nothing goes: its rows would be lost without a word."""

from collections.abc import Callable
from pathlib import Path

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.operations.inspection import inspect_purge
from housekeeping.policies.archives import ExportTo
from housekeeping.policies.errors import ExportPlaceRefused, PolicyRefused
from housekeeping.policies.purge import PartitionCare
from housekeeping.stores.files import parquet_rows
from tests.integration.database import Database
from tests.integration.exported_partitions import ALL, GRACE, due, exporting
from tests.integration.partitions import fill, partitioned, there
from tests.integration.runs import run


def not_partitioned(database: Database) -> None:
    database.run("CREATE TABLE events (id bigint, created_at timestamptz, status text)")


def referred_to(database: Database) -> None:
    partitioned(database)
    database.run("ALTER TABLE events ADD PRIMARY KEY (id, created_at)")
    database.run(
        "CREATE TABLE lines (id bigint, at timestamptz,"
        " FOREIGN KEY (id, at) REFERENCES events ON DELETE CASCADE);"
        "CREATE INDEX ON lines (id, at)"
    )


def by_another_column(database: Database) -> None:
    database.run(
        "CREATE TABLE events (id bigint, created_at timestamptz) PARTITION BY RANGE (id);"
        "CREATE TABLE events_0 PARTITION OF events DEFAULT"
    )


def watched(database: Database) -> None:
    partitioned(database)
    database.run(
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER t AFTER DELETE ON events FOR EACH ROW EXECUTE FUNCTION f()"
    )


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (not_partitioned, "has no partitions that could be detached and exported"),
        (referred_to, "none goes whole: a foreign key refers to public.events"),
        (
            by_another_column,
            "none goes whole: none of its levels has partitions by ranges of created_at",
        ),
        (watched, "none goes whole: trigger t on public.events"),
    ],
)
def test_where_no_partition_could_ever_be_exported_nothing_goes(
    database: Database,
    around: Surroundings,
    tmp_path: Path,
    make: Callable[[Database], None],
    told: str,
) -> None:
    make(database)
    if make is not_partitioned:
        database.run("INSERT INTO events VALUES (1, '2001-01-01')")
    policy = exporting(database, tmp_path)

    for attempt in (
        lambda: run(policy, around),
        lambda: run(policy, around, dry_run=True),
        lambda: inspect_purge(policy),
    ):
        with pytest.raises(PolicyRefused, match=told):
            attempt()


def test_a_limit_which_counts_rows_is_refused(
    database: Database, around: Surroundings, tmp_path: Path
) -> None:
    policy = due(database, around, tmp_path)
    with pytest.raises(PolicyRefused, match="a limit counts rows"):
        run(policy, around, limit=5)
    assert there(database) == ALL


def test_parquet_without_its_library_is_refused_with_the_remedy(
    database: Database, around: Surroundings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partitioned(database)
    fill(database)
    monkeypatch.setattr(parquet_rows, "installed", lambda: False)
    with pytest.raises(ExportPlaceRefused, match=r"Install celery-housekeeping\[parquet\]"):
        run(exporting(database, tmp_path, "parquet"), around)
    assert run(exporting(database, tmp_path, "jsonl"), around).success


def test_a_policy_that_keeps_detached_partitions_can_not_export_them(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="never exported"):
        PartitionCare(grace=GRACE, then="keep", export=ExportTo(url=str(tmp_path)))
