"""Exports: every value to the byte, checked before the table goes, written once, never overwritten."""

import gzip
import hashlib
import json
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.operations.archive_rehearsal import inspect_archive_expiry
from housekeeping.policies.archive import ArchiveTo
from housekeeping.policies.archives import ExportTo
from housekeeping.policies.errors import ExportPlaceRefused, ExportUnreachable
from housekeeping.policies.purge import TableName
from housekeeping.policies.result import StopReason
from housekeeping.stores.files import parquet_rows
from housekeeping.stores.files.exports import Exports
from housekeeping.stores.files.place import Sink
from housekeeping.stores.files.row_text import line_of
from tests.integration.archived import (
    FEBRUARY,
    FORMATS,
    JANUARY,
    archive_two_months,
    archiving,
    entry,
    expire,
    expiring,
    exporting,
    there,
)
from tests.integration.database import Database
from tests.integration.runs import run

EVERY_TYPE = Path(__file__).with_name("every_type.sql").read_text()
ENDINGS = {"parquet": ".parquet", "csv": ".csv.gz", "jsonl": ".jsonl.gz"}
EVERY_FORMAT = pytest.mark.parametrize("format_", FORMATS)


@pytest.fixture
def archived(events: Database, around: Surroundings) -> Database:
    """A database with January and February 2024 archived, 20 rows each."""
    archive_two_months(events, around)
    return events


def manifest_of(folder: Path, table: str = JANUARY) -> dict[str, Any]:
    return dict(json.loads((folder / f"{table}.manifest.json").read_text()))


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
    lines = {}
    for table in months:  # what COPY, which nobody here wrote, says the rows are
        with database.session() as session, session.cursor() as cursor:
            cursor.execute(
                "SET TimeZone = 'UTC'; SET search_path = pg_catalog; SET lc_monetary = 'C'"
            )
            with (tmp_path / "copy").open("wb") as file:
                cursor.copy_expert(f"COPY {table} TO STDOUT", file)
            lines[table] = sorted((tmp_path / "copy").read_bytes().splitlines(keepends=True))

    everything = {"source": TableName("everything"), "undated": True}
    short = timedelta(milliseconds=1)  # all but the month that goes on
    result = expire(exporting(database, tmp_path, format_, keep_for=short, **everything), around)

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


def test_what_has_the_name_already_is_never_overwritten(
    archived: Database, around: Surroundings, tmp_path: Path
) -> None:
    precious = tmp_path / f"{JANUARY}.csv.gz"
    precious.write_text("somebody else's")

    result = expire(exporting(archived, tmp_path), around)

    assert result.success
    assert precious.read_text() == "somebody else's"
    assert entry(result, JANUARY)["exported_to"].endswith(f"{JANUARY}.2.manifest.json")


def test_a_month_made_again_by_late_rows_is_exported_beside_the_first(
    archived: Database, around: Surroundings, tmp_path: Path
) -> None:
    policy = exporting(archived, tmp_path)
    expire(policy, around)
    archived.run("INSERT INTO events VALUES (100, '2024-01-20')")
    run(archiving(archived), around)

    assert expire(policy, around).success

    assert manifest_of(tmp_path)["rows"] == 20
    assert manifest_of(tmp_path, f"{JANUARY}.2")["rows"] == 1
    ledger = archived.one(
        "SELECT exported FROM housekeeping.archive_table WHERE period = '2024_01'"
    )
    assert ledger["manifest"].endswith(".2.manifest.json")
    assert ledger["earlier"]["rows"] == 20


@pytest.mark.parametrize("url", ["nowhere", "file"])
def test_a_place_that_can_not_be_written_to_keeps_everything(
    archived: Database, around: Surroundings, tmp_path: Path, url: str
) -> None:
    (tmp_path / "file").write_text("no folder")
    policy = exporting(archived, tmp_path / url)

    result = expire(policy, around)

    assert (result.stop_reason, result.exit_code) == (StopReason.ERROR, 1)
    assert result.error is not None
    assert "there is no such folder; make it" in result.error
    assert len(there(archived)) == 2
    with pytest.raises(ExportUnreachable):
        inspect_archive_expiry(policy)


def test_a_disk_that_fills_up_keeps_the_table_and_leaves_no_part(
    archived: Database, around: Surroundings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Sink.write

    def full(self: Sink, data: Any) -> int:
        if self.bytes + len(data) > 100:
            with self._told():
                raise OSError(28, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(Sink, "write", full)
    result = expire(exporting(archived, tmp_path), around)

    assert result.stop_reason is StopReason.ERROR
    assert "No space left on device" in (result.error or "")
    assert len(there(archived)) == 2
    assert list(tmp_path.iterdir()) == []


def test_parquet_without_its_library_is_refused_with_the_remedy(
    archived: Database, around: Surroundings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_rows, "installed", lambda: False)
    with pytest.raises(ExportPlaceRefused, match=r"Install celery-housekeeping\[parquet\]"):
        expire(exporting(archived, tmp_path, "parquet"), around)
    assert expire(exporting(archived, tmp_path, "jsonl"), around).success


def test_a_place_that_ends_with_the_process_is_refused(
    archived: Database, around: Surroundings
) -> None:
    for url in ("memory://archives", "simplecache::file:///tmp", "zip:///a.zip"):
        with pytest.raises(ExportPlaceRefused, match="is not kept"):
            expire(expiring(archived, export=ExportTo(url=url, format="csv")), around)
    assert len(there(archived)) == 2


def test_childrens_rows_are_exported_with_the_month_they_belong_to(
    events: Database, around: Surroundings, tmp_path: Path
) -> None:
    events.run(
        "CREATE TABLE lines (id int PRIMARY KEY, event bigint REFERENCES events ON DELETE CASCADE);"
        "CREATE INDEX ON lines (event)"
    )
    events.run("INSERT INTO events VALUES (1, '2024-01-05')")
    events.run("INSERT INTO lines VALUES (10, 1), (11, 1)")
    run(archiving(events), around)

    result = expire(exporting(events, tmp_path, "jsonl"), around)

    assert (result.total, result.details["rows_exported"]) == (2, 3)
    main = manifest_of(tmp_path)
    assert main["children"] == [f"{JANUARY}_lines.manifest.json"]
    assert manifest_of(tmp_path, f"{JANUARY}_lines")["part_of"] == JANUARY


def test_a_table_without_a_key_and_one_of_an_odd_name_are_exported(
    database: Database, around: Surroundings, tmp_path: Path
) -> None:
    database.run('CREATE TABLE "a/b %s:ü" (created_at timestamptz, hk_row text, "%" int)')
    database.run("INSERT INTO \"a/b %s:ü\" VALUES ('2024-01-05', 'x', 1), ('2024-01-05', 'x', 1)")
    run(archiving(database, "a/b %s:ü", archive=ArchiveTo(prefix="old/%s ü")), around)

    source = TableName("a/b %s:ü")
    assert expire(exporting(database, tmp_path, "csv", source=source), around).success

    manifest = manifest_of(tmp_path, "public.old%2F%25s ü_2024_01")
    assert (manifest["rows"], manifest["min_key"]) == (2, None)


def test_a_run_id_seen_again_answers_what_it_did(
    archived: Database, around: Surroundings, tmp_path: Path
) -> None:
    run_id = uuid4()
    first = expire(exporting(archived, tmp_path), around, run_id=run_id)
    assert expire(exporting(archived, tmp_path), around, run_id=run_id).as_dict() == first.as_dict()
