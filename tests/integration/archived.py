"""Archived months to drop, export and put back: made by a real run of archiving."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from housekeeping.engine.run import Request, Surroundings
from housekeeping.operations.archives.expiry import drop_expired_archives
from housekeeping.operations.archives.restore import restore
from housekeeping.policies.archive import ArchiveTo
from housekeeping.policies.archives import ArchiveExpiryPolicy, ExportTo, RestorePolicy
from housekeeping.policies.purge import PurgePolicy, TableName
from housekeeping.policies.result import RunResult
from tests.integration.database import Database
from tests.integration.runs import BRISK, policy_on, run

OPERATION = "database.drop_expired_archives"
YEAR = timedelta(days=365)
JANUARY, FEBRUARY = "public.old_2024_01", "public.old_2024_02"
ENDINGS = {"parquet": ".parquet", "csv": ".csv.gz", "jsonl": ".jsonl.gz"}
FORMATS = tuple(ENDINGS)
EVERY_FORMAT = pytest.mark.parametrize("format_", FORMATS)
LIVE_AND_EXPORTED = pytest.mark.parametrize("kind", ["live", *FORMATS])
LIVE_AND_CSV = pytest.mark.parametrize("kind", ["live", "csv"])
ROWS = "SELECT id, created_at, status, note FROM events ORDER BY id"


def archiving(database: Database, table: str = "events", **given: Any) -> PurgePolicy:
    """Return a policy that moves rows of `table` to `old_2024_01` and so on."""
    return policy_on(
        database,
        table,
        **{"operation": "tables.archive", "archive": ArchiveTo(prefix="old"), **given},
    )


def archive_two_months(database: Database, around: Surroundings, rows: int = 40) -> None:
    """Fill `events` with rows of January and February 2024, half and half, and archive them.

    Even ids are of January.
    """
    database.run(
        "INSERT INTO events SELECT i, timestamptz '2024-01-10' + i %% 2 * interval '31 days',"
        " 'done', 'note ' || i FROM generate_series(1, %s) i",
        rows,
    )
    assert run(archiving(database), around).total == rows


def expiring(database: Database, **given: Any) -> ArchiveExpiryPolicy:
    """Return a policy under which everything of 2024 is past its age."""
    plain: dict[str, Any] = {
        "operation": OPERATION,
        "name": "old",
        "database_url": database.url,
        "keep_for": YEAR,
        "source": TableName("events"),
        "pace": BRISK,
    }
    return ArchiveExpiryPolicy(**{**plain, **given})


def exporting(
    database: Database, folder: Path, format_: Any = "csv", **given: Any
) -> ArchiveExpiryPolicy:
    """Return such a policy that exports first."""
    return expiring(database, export=ExportTo(url=str(folder), format=format_), **given)


def expire(policy: ArchiveExpiryPolicy, around: Surroundings, **asked: Any) -> RunResult:
    """Drop what has expired, in this thread."""
    return drop_expired_archives(policy, Request(run_by="tester@here", **asked), around)


def there(database: Database) -> list[str]:
    """Return the dated tables there are."""
    return database.column(
        "SELECT 'public.' || relname FROM pg_class WHERE relname LIKE 'old%%' AND relkind = 'r'"
        " AND relnamespace = 'public'::regnamespace ORDER BY 1"
    )


def manifest_of(folder: Path, table: str = JANUARY) -> dict[str, Any]:
    """Return what an export says of itself."""
    return dict(json.loads((folder / f"{table}.manifest.json").read_text()))


def entry(result: RunResult, table: str) -> dict[str, Any]:
    """Return what a result says of one table."""
    return next(dict(each) for each in result.tables if each["table"] == table)


def restoring(database: Database, **given: Any) -> RestorePolicy:
    """Return a policy that puts January back."""
    plain: dict[str, Any] = {
        "operation": "archives.restore",
        "name": "restore",
        "database_url": database.url,
        "pace": BRISK,
    }
    named = {} if "manifest_url" in given else {"relation": JANUARY}
    return RestorePolicy(**{**plain, **named, **given})


def put_back(policy: RestorePolicy, around: Surroundings, **asked: Any) -> RunResult:
    """Put archived rows back, in this thread."""
    return restore(policy, Request(run_by="tester@here", **asked), around)


def images(database: Database, *tables: str, columns: str) -> dict[Any, str]:
    """Return rows as text by id, of all these tables."""
    found: dict[Any, str] = {}
    for table in tables:
        for key, image in database.rows(f"SELECT id, ROW({columns})::text FROM {table}"):
            assert key not in found, key
            found[key] = image
    return found


def prepared(
    database: Database, around: Surroundings, folder: Path, kind: str, **given: Any
) -> Any:
    """Return a policy that puts January back: from its dated table, or from an export of it."""
    if kind == "live":
        return restoring(database, **given)
    assert expire(exporting(database, folder, kind), around).success
    return restoring(database, manifest_url=f"{folder}/{JANUARY}.manifest.json", **given)


def ledger_holds_what_is_there(database: Database) -> bool:
    return all(
        database.count(relation) == rows
        for relation, rows in database.rows(
            "SELECT relation, rows FROM housekeeping.archive_table WHERE dropped_at IS NULL"
        )
    )
