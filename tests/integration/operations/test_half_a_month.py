"""A month whose tables went, or were exported, one without the other: what is known of each leads on."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.operations.archives import group_expiry
from housekeeping.policies.archives import ArchiveExpiryPolicy
from housekeeping.policies.result import RunResult
from tests.integration.archived import (
    JANUARY,
    archive_two_months,
    archiving,
    expire,
    exporting,
    put_back,
    restoring,
    there,
)
from tests.integration.database import Database
from tests.integration.runs import BRISK, run

LINES = "SELECT id FROM lines ORDER BY 1"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_expiry, "_PAUSES", (0.05,))


@pytest.fixture
def lined(events: Database, around: Surroundings) -> Database:
    """A row of January and two of its child table, archived."""
    events.run(
        "CREATE TABLE lines (id int PRIMARY KEY, event bigint REFERENCES events ON DELETE CASCADE);"
        "CREATE INDEX ON lines (event); INSERT INTO events VALUES (1, '2024-01-05');"
        "INSERT INTO lines VALUES (10, 1), (11, 1)"
    )
    run(archiving(events), around)
    return events


@contextmanager
def read(database: Database, table: str) -> Iterator[None]:
    """A user reads a table for as long as the block lasts: it can't be dropped."""
    with database.session() as user, user.cursor() as cursor:
        cursor.execute(f"SELECT FROM {table}")
        yield


def quickly(database: Database, folder: Path) -> ArchiveExpiryPolicy:
    return exporting(
        database, folder, pace=replace(BRISK, lock_timeout=timedelta(milliseconds=100))
    )


def restored(database: Database, policy: ArchiveExpiryPolicy, around: Surroundings) -> RunResult:
    """Put January back by its name."""
    assert policy.export is not None
    return put_back(restoring(database, places=(policy.export,)), around)


def test_an_export_found_again_still_leads_to_the_one_before(
    events: Database, around: Surroundings, tmp_path: Path
) -> None:
    archive_two_months(events, around)
    policy = quickly(events, tmp_path)
    assert expire(policy, around).success
    events.run("INSERT INTO events VALUES (100, '2024-01-20')")
    run(archiving(events), around)
    with read(events, "old_2024_01"):
        assert not expire(policy, around).success

    assert expire(policy, around).success

    result = restored(events, policy, around)
    assert result.total == 1
    assert any(
        "public.old_2024_01 was exported too, with 20 rows" in told for told in result.warnings
    )


def test_a_months_manifest_leads_to_the_export_its_lines_got_later(
    lined: Database, around: Surroundings, tmp_path: Path
) -> None:
    policy = quickly(lined, tmp_path)
    with read(lined, "old_2024_01_lines"):
        assert not expire(policy, around).success
    # The row is copied back and gets another line; archived again, only that line is new there.
    lined.run("INSERT INTO events VALUES (1, '2024-01-05'); INSERT INTO lines VALUES (12, 1)")
    run(archiving(lined), around)
    assert expire(policy, around).success

    restored(lined, policy, around)

    assert lined.column(LINES) == [10, 11, 12]


def test_lines_that_went_before_their_month_come_back_with_it(
    lined: Database, around: Surroundings, tmp_path: Path
) -> None:
    policy = quickly(lined, tmp_path)
    with read(lined, "old_2024_01"):
        assert not expire(policy, around).success
    assert there(lined) == [JANUARY]

    result = restored(lined, policy, around)

    assert (result.success, result.total) == (True, 3)
    assert lined.column(LINES) == [10, 11]


def test_lines_that_went_where_nobody_knows_are_told(
    lined: Database, around: Surroundings, tmp_path: Path
) -> None:
    with read(lined, "old_2024_01"):
        assert not expire(quickly(lined, tmp_path), around).success

    result = put_back(restoring(lined), around)

    assert result.total == 1
    assert any("old_2024_01_lines" in warning and str(tmp_path) in warning
               for warning in result.warnings)  # fmt: skip


def test_a_month_follows_lines_that_went_before_it_into_one_manifest(
    lined: Database, around: Surroundings, tmp_path: Path
) -> None:
    policy = quickly(lined, tmp_path)
    with read(lined, "old_2024_01"):
        assert not expire(policy, around).success
    assert expire(policy, around).success

    assert restored(lined, policy, around).total == 3
