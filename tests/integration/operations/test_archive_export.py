"""Exports: every value to the byte, checked before the table goes, written once, never overwritten."""

import gzip
import hashlib
import io
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.policies.archives import ExportTo
from housekeeping.policies.purge import TableName
from housekeeping.stores.files.exports import Exports
from housekeeping.stores.files.manifest import Manifest
from housekeeping.stores.files.row_text import line_of
from tests.integration.archived import (
    ENDINGS,
    EVERY_FORMAT,
    FEBRUARY,
    JANUARY,
    archiving,
    entry,
    expire,
    exporting,
    manifest_of,
    there,
)
from tests.integration.archives import EVERY_TYPE
from tests.integration.database import Database
from tests.integration.runs import run


def copied(database: Database, table: str) -> list[bytes]:
    """Return the lines COPY, which nobody here wrote, makes of a table."""
    with database.session() as session, session.cursor() as cursor:
        cursor.execute("SET TimeZone = 'UTC'; SET search_path = pg_catalog; SET lc_monetary = 'C'")
        file = io.BytesIO()
        cursor.copy_expert(f"COPY {table} TO STDOUT", file)
    return sorted(file.getvalue().splitlines(keepends=True))


@EVERY_FORMAT
def test_every_value_of_every_type_is_in_the_file_to_the_byte(
    database: Database, around: Surroundings, tmp_path: Path, format_: Any
) -> None:
    database.run("SET lc_monetary = 'C';" + EVERY_TYPE)
    database.run(
        "ALTER TABLE everything ADD money money DEFAULT '12.34', ADD blank text DEFAULT '',"
        " ADD specials text DEFAULT E'a\\tb\\nc\\rd\\\\e\"f,g\\u00a0', ADD one \"char\" DEFAULT 'x',"
        " ADD cls regclass DEFAULT 'everything', ADD nulls place DEFAULT ROW(NULL, NULL, NULL),"
        " ADD tiny double precision DEFAULT 5e-324, ADD zero real DEFAULT '-0'"
    )
    if database.version == 15:  # the embedded one was built without XML
        database.run("ALTER TABLE everything ADD x xml DEFAULT '<a b=\"c\"/>'")
    run(archiving(database, "everything"), around)
    months = there(database)
    lines = {table: copied(database, table) for table in months}

    soon: Any = {"keep_for": timedelta(milliseconds=1), "undated": True}  # all but this month
    everything = exporting(database, tmp_path, format_, source=TableName("everything"), **soon)
    result = expire(everything, around)

    assert result.success, result
    gone = set(months) - set(there(database))
    assert len(gone) >= len(months) - 1
    exports = Exports(ExportTo(url=str(tmp_path), format=format_))
    for table in gone:
        manifest = exports.manifest(f"{table}.manifest.json")
        rows = [row for batch in exports.rows(manifest) for row in batch]
        assert sorted(line_of(row) for row in rows) == lines[table]
        total = sum(int(hashlib.sha256(line).hexdigest(), 16) for line in lines[table])
        assert manifest.rows_sha256 == f"{total % 2**256:064x}"
        assert manifest.rows == len(lines[table])
        assert exports.place.exists(f"{table}{ENDINGS[format_]}")


def test_null_and_the_empty_string_are_told_apart_and_postgresql_reads_the_csv_itself(
    archived: Database, around: Surroundings, tmp_path: Path
) -> None:
    archived.run("UPDATE old_2024_01 SET note = NULL WHERE id = 2")
    archived.run("UPDATE old_2024_01 SET note = '' WHERE id = 4")
    archived.run("UPDATE old_2024_01 SET note = E'\"a\",\\n\\r\\n\\\\.\\n' WHERE id = 6")
    archived.run("CREATE TABLE copied (LIKE old_2024_01)")
    was = archived.rows("SELECT * FROM old_2024_01 ORDER BY id")

    assert expire(exporting(archived, tmp_path), around).success

    with archived.session() as session, session.cursor() as cursor:
        with gzip.open(tmp_path / f"{JANUARY}.csv.gz") as file:
            cursor.copy_expert("COPY copied FROM STDIN (FORMAT csv, HEADER)", file)
        session.commit()
    assert archived.rows("SELECT * FROM copied ORDER BY id") == was


def test_a_manifest_says_what_the_file_holds(
    archived: Database, around: Surroundings, tmp_path: Path
) -> None:
    result = expire(exporting(archived, tmp_path), around)

    manifest = manifest_of(tmp_path)
    file = tmp_path / f"{JANUARY}.csv.gz"
    assert manifest["format_version"] == 1
    assert (manifest["relation"], manifest["source"]) == (JANUARY, "public.events")
    assert (manifest["period"], manifest["rows"]) == ("2024_01", 20)
    assert (manifest["min_key"], manifest["max_key"]) == (["2"], ["40"])
    assert manifest["file"] == {
        "name": file.name,
        "format": "csv",
        "compression": "gzip",
        "bytes": file.stat().st_size,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    assert [column["type"] for column in manifest["columns"][:2]] == [
        "bigint",
        "timestamp with time zone",
    ]
    assert manifest["ledger"]["policy"] == "plain"
    assert result.details["tables_exported"] == 2
    assert result.details["rows_exported"] == 40
    told = entry(result, JANUARY)
    assert told["exported_to"] == f"{tmp_path}/{JANUARY}.manifest.json"
    ledger = archived.one(
        "SELECT exported FROM housekeeping.archive_table WHERE period = '2024_01'"
    )
    assert ledger["rows_sha256"] == manifest["rows_sha256"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        name
        for table in (JANUARY, FEBRUARY)
        for name in (f"{table}.csv.gz", f"{table}.manifest.json")
    ]


@EVERY_FORMAT
@pytest.mark.parametrize("damage", ["a bit", "cut off", "gone", "empty"])
def test_a_file_that_is_not_what_was_written_keeps_the_table(
    archived: Database, around: Surroundings, tmp_path: Path, format_: Any, damage: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path = tmp_path / f"{JANUARY}{ENDINGS[format_]}"

    def tamper(self: Exports, *_: Any) -> None:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 4
        if damage == "gone":
            path.unlink()
        else:
            path.write_bytes({"a bit": content, "cut off": content[:-9], "empty": b""}[damage])

    check = Exports.check
    monkeypatch.setattr(
        Exports,
        "check",
        lambda self, manifest, watch: (
            tamper(self) if manifest.relation == JANUARY else None,
            check(self, manifest, watch),
        )[1],
    )
    result = expire(exporting(archived, tmp_path, format_), around)

    assert (result.success, result.total) == (False, 1)
    assert "is not what its manifest says" in entry(result, JANUARY)["why"]
    assert there(archived) == [JANUARY]
    assert not (tmp_path / f"{JANUARY}.manifest.json").exists()


def test_a_value_that_is_read_as_another_keeps_the_table(
    archived: Database, around: Surroundings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = Exports.rows

    def misread(self: Exports, manifest: Manifest) -> Any:
        return ([(*row[:3], "note 1", *row[4:]) for row in batch] for batch in rows(self, manifest))

    monkeypatch.setattr(Exports, "rows", misread)
    result = expire(exporting(archived, tmp_path), around)
    assert "the checksum of its rows is another one" in entry(result, JANUARY)["why"]
    assert len(there(archived)) == 2


@EVERY_FORMAT
def test_killed_between_export_and_drop_it_goes_on_and_writes_nothing_twice(
    archived: Database, around: Surroundings, tmp_path: Path, format_: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    policy = exporting(archived, tmp_path, format_)
    with monkeypatch.context() as killed:
        killed.setattr(
            "housekeeping.stores.postgres.archives.dropping.Dropping.drop",
            lambda *_: (_ for _ in ()).throw(SystemExit),
        )
        with pytest.raises(SystemExit):
            expire(policy, around)
    around.redis.flushall()
    written = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert f"{JANUARY}.manifest.json" in written

    result = expire(policy, around)

    assert (result.success, result.total) == (True, 2)
    assert result.details["tables_exported"] == 1  # February; January's was there
    now = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert {name: now[name] for name in written} == written
    assert there(archived) == []


def test_an_export_tampered_with_between_two_runs_is_found_out(
    archived: Database, around: Surroundings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = exporting(archived, tmp_path)
    with monkeypatch.context() as killed:
        killed.setattr(
            "housekeeping.stores.postgres.archives.dropping.Dropping.drop",
            lambda *_: (_ for _ in ()).throw(SystemExit),
        )
        with pytest.raises(SystemExit):
            expire(policy, around)
    around.redis.flushall()
    with gzip.open(tmp_path / f"{JANUARY}.csv.gz", "rb") as file:
        content = file.read()
    with gzip.open(tmp_path / f"{JANUARY}.csv.gz", "wb") as file:
        file.write(content.replace(b"note 10", b"note 1O"))

    result = expire(policy, around)
    assert "its sha256 is another one" in entry(result, JANUARY)["why"]
    assert there(archived) == [JANUARY]

    (tmp_path / f"{JANUARY}.csv.gz").unlink()
    (tmp_path / f"{JANUARY}.manifest.json").unlink()
    assert expire(policy, around).success
    assert there(archived) == []


def test_rows_changed_after_the_export_keep_the_table(
    archived: Database, around: Surroundings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = Exports.publish

    def and_then_somebody_edits(self: Exports, *given: Any) -> Any:
        archived.run("UPDATE old_2024_01 SET note = 'edited' WHERE id = 2")
        return publish(self, *given)

    monkeypatch.setattr(Exports, "publish", and_then_somebody_edits)
    result = expire(exporting(archived, tmp_path), around)

    assert "changed after they had been exported" in entry(result, JANUARY)["why"]
    assert there(archived) == [JANUARY]
    monkeypatch.undo()

    assert expire(exporting(archived, tmp_path), around).success
    contents = [
        gzip.decompress((tmp_path / f"{JANUARY}{number}.csv.gz").read_bytes())
        for number in ("", ".2")
    ]
    assert [b'"edited"' in content for content in contents] == [False, True]
