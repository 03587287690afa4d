"""Where exports go: names that are taken, places that fail, tables with odd names."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.operations.archives.rehearsal import inspect_archive_expiry
from housekeeping.policies.archive import ArchiveTo
from housekeeping.policies.archives import ExportTo
from housekeeping.policies.errors import ExportPlaceRefused, ExportUnreachable
from housekeeping.policies.purge import TableName
from housekeeping.policies.result import StopReason
from housekeeping.stores.files import parquet_rows
from housekeeping.stores.files.exports import Exports
from housekeeping.stores.files.place import Sink
from tests.integration.archived import (
    JANUARY,
    archiving,
    entry,
    expire,
    expiring,
    exporting,
    manifest_of,
    there,
)
from tests.integration.database import Database
from tests.integration.runs import run


def test_what_has_the_name_already_is_never_overwritten(
    archived: Database, around: Surroundings, tmp_path: Path
) -> None:
    precious = tmp_path / f"{JANUARY}.csv.gz"
    precious.write_text("somebody else's")

    result = expire(exporting(archived, tmp_path), around)

    assert result.success
    assert precious.read_text() == "somebody else's"
    assert entry(result, JANUARY)["exported_to"].endswith(f"{JANUARY}.2.manifest.json")


@pytest.mark.parametrize("format_", ["csv", "parquet"])
def test_a_file_whose_manifest_was_never_written_is_taken_over(
    archived: Database, around: Surroundings, tmp_path: Path, format_: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with monkeypatch.context() as killed:
        killed.setattr(Exports, "_write_manifest", lambda *_: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            expire(exporting(archived, tmp_path, format_), around)
    around.redis.flushall()
    (file,) = tmp_path.iterdir()

    assert expire(exporting(archived, tmp_path, format_), around).success

    assert manifest_of(tmp_path)["file"]["name"] == file.name
    assert len(list(tmp_path.iterdir())) == 4


def test_killed_while_a_manifest_has_two_names_it_leaves_one(
    archived: Database, around: Surroundings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, unlink = exporting(archived, tmp_path), Path.unlink

    def killed_at_a_manifest(path: Path, **_: object) -> None:
        if "manifest" in path.name:
            raise SystemExit
        unlink(path)

    with monkeypatch.context() as killed:
        killed.setattr(Path, "unlink", killed_at_a_manifest)
        with pytest.raises(SystemExit):
            expire(policy, around)
    around.redis.flushall()
    (passing,) = tmp_path.glob("*.partial")
    assert passing.samefile(tmp_path / f"{JANUARY}.manifest.json")

    assert expire(policy, around).success

    assert not list(tmp_path.glob("*.partial"))
    assert manifest_of(tmp_path)["rows"] == 20


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
