"""Databases with the encoding SQL_ASCII hold any bytes: exported and put back, none is lost."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from embedded.postgresql import PostgresServer
from housekeeping.engine.run import Surroundings
from housekeeping.policies.archives import ExportTo
from housekeeping.policies.purge import PartitionCare
from housekeeping.stores.files.exports import Exports
from housekeeping.stores.files.row_text import line_of
from tests.integration.archived import (
    FEBRUARY,
    JANUARY,
    archiving,
    entry,
    expire,
    exporting,
    put_back,
    restoring,
    there,
)
from tests.integration.database import Database
from tests.integration.operations.test_archive_export import copied
from tests.integration.runs import BRISK, policy_on, run

KEEPS_BYTES = pytest.mark.parametrize("format_", ["csv", "jsonl"])
IMAGES = "SELECT id, encode(convert_to(note, 'SQL_ASCII'), 'hex') FROM events ORDER BY id"


@pytest.fixture
def any_bytes(postgres: PostgresServer) -> Iterator[Database]:
    """January's rows are ASCII, UTF-8, Latin 1 and no text at all; February's are ASCII."""
    postgres.drop_database("any_bytes")
    with closing(psycopg2.connect(postgres.url())) as session:
        session.autocommit = True
        with session.cursor() as cursor:
            cursor.execute(
                "CREATE DATABASE any_bytes TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'"
            )
    database = Database(postgres.url("any_bytes"), postgres.installation.version)
    database.run(
        "CREATE TABLE events (id bigint PRIMARY KEY, created_at timestamptz, note text);"
        "INSERT INTO events VALUES (1, '2024-01-10', 'plain'), (2, '2024-01-10', E'Gr\\303\\274n'),"
        " (3, '2024-01-10', E'caf\\351, \"\\377\\200\\n\\\\'), (4, '2024-01-10', E'\\355\\263\\277'),"
        " (5, '2024-02-10', 'plain')"
    )
    yield database
    postgres.drop_database("any_bytes")


@KEEPS_BYTES
def test_every_byte_is_in_the_export_and_comes_back(
    any_bytes: Database, around: Surroundings, tmp_path: Path, format_: Any
) -> None:
    before = any_bytes.rows(IMAGES)
    assert run(archiving(any_bytes), around).total == 5
    lines = copied(any_bytes, JANUARY)

    result = expire(exporting(any_bytes, tmp_path, format_), around)

    assert result.success, result
    assert there(any_bytes) == []
    exports = Exports(ExportTo(url=str(tmp_path), format=format_))
    manifest = exports.manifest(f"{JANUARY}.manifest.json")
    rows = [row for batch in exports.rows(manifest) for row in batch]
    assert sorted(line_of(row) for row in rows) == lines
    for table in (JANUARY, FEBRUARY):
        address = f"{tmp_path}/{table}.manifest.json"
        assert put_back(restoring(any_bytes, manifest_url=address), around).success
    assert any_bytes.rows(IMAGES) == before


def test_what_parquet_can_not_hold_stays_is_told_and_stops_nobody_else(
    any_bytes: Database, around: Surroundings, tmp_path: Path
) -> None:
    run(archiving(any_bytes), around)

    result = expire(exporting(any_bytes, tmp_path, "parquet"), around)

    assert (result.success, result.total, result.error) == (False, 1, None), result
    assert there(any_bytes) == [JANUARY]
    kept = entry(result, JANUARY)
    assert (kept["done"], kept["rows"]) == ("kept", 4)
    assert 'Parquet can\'t hold as text; give the format "csv"' in kept["why"]
    assert any_bytes.count(JANUARY) == 4
    assert not list(tmp_path.glob("*2024_01*"))
    assert expire(exporting(any_bytes, tmp_path, "csv"), around).success


def test_a_database_that_takes_only_utf_8_refuses_those_rows_and_takes_the_others(
    any_bytes: Database, events: Database, around: Surroundings, tmp_path: Path
) -> None:
    run(archiving(any_bytes), around)
    assert expire(exporting(any_bytes, tmp_path, "csv"), around).success
    address = f"{tmp_path}/{JANUARY}.manifest.json"

    result = put_back(restoring(events, manifest_url=address), around)

    assert (result.total, result.details["refused"], result.exit_code) == (2, 2, 2), result
    assert events.column("SELECT note FROM events ORDER BY id") == ["plain", "Gr\u00fcn"]
    assert any("no text in this database's encoding" in warning for warning in result.warnings)


def test_text_the_driver_can_not_read_keeps_its_month_and_no_other(
    postgres: PostgresServer, around: Surroundings, tmp_path: Path
) -> None:
    """The server takes any byte for WIN1252; Python knows no character for 0x81."""
    postgres.drop_database("windows")
    with closing(psycopg2.connect(postgres.url())) as session:
        session.autocommit = True
        with session.cursor() as cursor:
            cursor.execute(
                "CREATE DATABASE windows TEMPLATE template0 ENCODING 'WIN1252' LOCALE 'C'"
            )
    windows = Database(postgres.url("windows"), postgres.installation.version)
    try:
        windows.run(
            "CREATE TABLE events (id bigint PRIMARY KEY, created_at timestamptz, note text);"
            "INSERT INTO events VALUES (1, '2024-01-10', E'\\201'), (2, '2024-02-10', E'\\374')"
        )
        run(archiving(windows), around)
        result = expire(exporting(windows, tmp_path), around)
        assert (result.success, result.total) == (False, 1), result
        assert "can't be read as" in entry(result, JANUARY)["why"]
        assert there(windows) == [JANUARY]
    finally:
        postgres.drop_database("windows")


def test_a_partition_parquet_can_not_hold_stays_and_the_others_go(
    any_bytes: Database, around: Surroundings, tmp_path: Path
) -> None:
    any_bytes.run(
        "CREATE TABLE parted (created_at timestamptz, note text) PARTITION BY RANGE (created_at);"
        "CREATE TABLE january PARTITION OF parted FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');"
        "CREATE TABLE february PARTITION OF parted FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');"
        "CREATE TABLE later PARTITION OF parted FOR VALUES FROM ('2024-03-01') TO (MAXVALUE);"
        "INSERT INTO parted SELECT created_at, note FROM events"
    )
    care = PartitionCare(grace=timedelta(0), export=ExportTo(url=str(tmp_path), format="parquet"))
    policy = policy_on(any_bytes, "parted", partitions=care)
    assert run(policy, around).details["partitions_detached"] == 2

    result = run(policy, around)

    assert (result.success, result.details["partitions_dropped"]) == (False, 1), result
    assert any("Parquet can't hold as text" in told for told in result.warnings)
    left = any_bytes.column(
        "SELECT to_regclass(name) FROM unnest('{january,february}'::text[]) name"
    )
    assert left == ["january", None]


@pytest.mark.parametrize("walker", ["heap", "index"])
def test_a_window_in_slices_reads_a_policys_bytes_as_they_are_stored(
    any_bytes: Database, around: Surroundings, walker: str
) -> None:
    any_bytes.run("CREATE INDEX ON events (created_at)")
    pace = replace(BRISK, duty=0.5)

    result = run(policy_on(any_bytes, where="note = 'Grün'", pace=pace), around, walker=walker)

    assert (result.success, result.total) == (True, 1)
