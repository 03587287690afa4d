"""Two databases that export to one folder at one time: neither takes a byte of the other's."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]

from housekeeping.engine.run import Surroundings
from housekeeping.operations.archives import export
from tests.conditions import wait_until
from tests.integration.archived import (
    FORMATS,
    JANUARY,
    archive_two_months,
    entry,
    expire,
    exporting,
    put_back,
    restoring,
    there,
)
from tests.integration.conftest import DatabaseFactory

SCHEMA = (
    "CREATE TABLE events (id bigint PRIMARY KEY, created_at timestamptz, status text, note text);"
)


@pytest.mark.parametrize("format_", FORMATS)
def test_an_export_that_was_begun_earlier_writes_nothing_into_one_that_is_done(
    new_database: DatabaseFactory, around: Surroundings, tmp_path: Path, format_: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    slow, quick = new_database(SCHEMA), new_database(SCHEMA)
    for database in (slow, quick):
        archive_two_months(database, around)
    done, read = threading.Event(), export.text_rows

    def slowly(connection: Any, *given: Any) -> Iterator[Any]:
        if connection.engine.url.database == slow.url.rpartition("/")[2].partition("?")[0]:
            assert done.wait(30)
        yield from read(connection, *given)

    monkeypatch.setattr(export, "text_rows", slowly)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(expire, exporting(slow, tmp_path, format_), around)
        wait_until(lambda: any(tmp_path.glob("*.partial")), 20)
        first = expire(exporting(quick, tmp_path, format_), around)
        done.set()
        second = waiting.result(30)

    assert there(quick) == []
    for database, result in ((quick, first), (slow, second)):
        assert result.success, result
        manifest = entry(result, JANUARY)["exported_to"]
        assert put_back(restoring(database, manifest_url=manifest), around).total == 20
    assert not list(tmp_path.glob("*.partial"))


def test_a_name_taken_while_a_file_is_given_it_leads_to_the_next_one(
    new_database: DatabaseFactory, around: Surroundings, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The slow one has looked, and found the name free; the quick one does all it does, and drops."""
    slow, quick = new_database(SCHEMA), new_database(SCHEMA)
    quick.run("ALTER TABLE events ADD quick int DEFAULT 1")
    for database in (slow, quick):
        archive_two_months(database, around)
    done: list[Any] = []

    def after_the_quick_one(rename: Any) -> Any:
        def renamed(*given: Any, **more: Any) -> Any:
            if not done:
                done.append("it begins")
                done.append(expire(exporting(quick, tmp_path), around))
            return rename(*given, **more)

        return renamed

    monkeypatch.setattr(LocalFileSystem, "mv", after_the_quick_one(LocalFileSystem.mv))
    monkeypatch.setattr(os, "link", after_the_quick_one(os.link))
    second = expire(exporting(slow, tmp_path), around)

    assert there(quick) == there(slow) == []
    for database, result in ((quick, done[1]), (slow, second)):
        assert result.success, result
        manifest = entry(result, JANUARY)["exported_to"]
        assert put_back(restoring(database, manifest_url=manifest), around).total == 20
