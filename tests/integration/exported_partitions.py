"""Partitions to detach, export, drop and put back: made by real runs."""

import json
from pathlib import Path
from typing import Any

from housekeeping.engine.run import Surroundings
from housekeeping.policies.archives import ExportTo
from housekeeping.policies.purge import PartitionCare, PurgePolicy
from housekeeping.policies.result import RunResult
from tests.integration.archived import put_back, restoring
from tests.integration.database import Database
from tests.integration.partitions import WHOLE, fill, move_time, partitioned
from tests.integration.runs import DAYS, policy_on, run

GRACE = DAYS / (24 * 60)
OLDEST = "events_9"
STAYING = [f"events_{k}" for k in range(4)]
ALL = [f"events_{k}" for k in range(10)]
COLUMNS = (
    ", doc jsonb, words text[], grid int[][], exact numeric, raw bytea, seen timestamptz(3),"
    " span interval, fixed char(5), twice bigint GENERATED ALWAYS AS (id * 2) STORED"
)
_VALUES = """
UPDATE events SET doc = jsonb_build_object('a', id, 'b', ARRAY['x', NULL, E'q"\\n\\t']),
    words = ARRAY['a', NULL, '{}', '"q"', ''], grid = ARRAY[[1, 2], [3, NULL]], exact = id / 7.0,
    raw = decode(lpad(to_hex(id), 8, '0'), 'hex'), seen = now() - id * interval '1 hour',
    span = interval '1 mon 2 days 03:04:05', fixed = 'ab', status = nullif('ü' || id, 'ü95')
WHERE id % 10 <> 7
"""


def exporting(
    database: Database, folder: Path | str, format_: Any = "csv", **given: Any
) -> PurgePolicy:
    """Return a policy that exports partitions before it drops them, a minute after detaching."""
    to = ExportTo(url=str(folder), format=format_)
    return policy_on(database, partitions=PartitionCare(grace=GRACE, export=to), **given)


def filled(database: Database) -> None:
    """Make `events` with values of many types, and NULLs."""
    partitioned(database, columns=COLUMNS)
    database.run(
        "INSERT INTO events (id, created_at) SELECT i, date_trunc('day', now()) - i * interval '1 day'"
        " FROM generate_series(0, 95) i"
    )
    database.run(_VALUES)
    database.run("ANALYZE events")


def due(
    database: Database, around: Surroundings, folder: Path | str, format_: Any = "csv", **given: Any
) -> PurgePolicy:
    """Detach all that expired, and let its grace be over; return the policy."""
    if not database.one("SELECT to_regclass('events') IS NOT NULL"):
        partitioned(database)
        fill(database)
    policy = exporting(database, folder, format_, **given)
    assert run(policy, around).details["partitions_detached"] >= len(WHOLE)
    move_time(database, 61)
    return policy


def manifest_of(folder: Path, name: str = OLDEST) -> dict[str, Any]:
    """Return what an export says of itself."""
    return dict(json.loads((folder / f"public.{name}.manifest.json").read_text()))


def manifests(folder: Path) -> list[str]:
    """Return the tables exports were made of."""
    found = (path.name for path in folder.glob("*.manifest.json"))
    return sorted(n.removeprefix("public.").removesuffix(".manifest.json") for n in found)


def images(database: Database) -> dict[int, str]:
    """Return the rows of `events` as text, by id."""
    return dict(database.rows("SELECT id, events::text FROM events"))


def back(
    database: Database, around: Surroundings, folder: Path, name: str = OLDEST, **asked: Any
) -> RunResult:
    """Put one exported partition back, from its manifest."""
    url = f"{folder}/public.{name}.manifest.json"
    return put_back(restoring(database, manifest_url=url), around, **asked)


def partition_again(database: Database, name: str = OLDEST) -> None:
    """Make the partition of that name again, empty, as the ledger remembers it."""
    bounds = database.one(
        "SELECT bounds FROM housekeeping.detached_partition WHERE relation_name = %s"
        " ORDER BY id DESC LIMIT 1",
        name,
    )
    database.run(f"CREATE TABLE {name} PARTITION OF events {bounds}")
