"""How a test places a hold, and what it hangs on."""

from typing import Any

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.operations.holds import place_hold
from housekeeping.policies.hold import Hold
from housekeeping.policies.purge import TableName
from housekeeping.policies.result import RunResult
from tests.integration.database import Database
from tests.integration.runs import (
    BRISK,
    policy_on,
    run,
)

BOTH_WALKERS = pytest.mark.parametrize("walker", ["heap", "index"])
WAYS = pytest.mark.parametrize("placed", ["in the settings", "in the database"])
PATIENT = BRISK.__class__(duty=1.0, lock_timeout=25 * BRISK.lock_timeout)
LETTERS = (
    "CREATE TABLE letters (id int PRIMARY KEY, event bigint REFERENCES events ON DELETE CASCADE,"
    " status text);"
    "CREATE INDEX ON letters (event); INSERT INTO letters SELECT id, id FROM events"
)
PAGES = (
    "CREATE TABLE pages (letter int REFERENCES letters ON DELETE CASCADE, number int, status text);"
    "CREATE INDEX ON pages (letter); INSERT INTO pages SELECT id, 1 FROM letters"
)


def fill(database: Database, days: int = 60) -> None:
    """Fill `events`, one a day; rows from 30 on have expired."""
    database.run(
        "INSERT INTO events SELECT i, now() - i * interval '1 day', 'done'"
        " FROM generate_series(1, %s) i",
        days,
    )


def hold_on(where: str, table: str = "events", name: str = "lawsuit") -> Hold:
    return Hold(name=name, table=TableName(table), where=where, reason="case 42")


def place(database: Database, where: str, table: str = "events") -> int:
    return place_hold(database.url, TableName(table), where, "case 42", "lawyer@here").id


def run_held(
    database: Database,
    around: Surroundings,
    placed: str,
    where: str,
    table: str = "events",
    policy: dict[str, Any] | None = None,
    **asked: Any,
) -> RunResult:
    """Run under one hold, placed one way or the other."""
    holds: tuple[Hold, ...] = ()
    if placed == "in the settings":
        holds = (hold_on(where, table),)
    else:
        place(database, where, table)
    return run(policy_on(database, holds=holds, **(policy or {})), around, **asked)


def old(database: Database, table: str = "events", column: str = "id") -> list[int]:
    return database.column(f"SELECT {column} FROM {table} WHERE {column} >= 30 ORDER BY 1")
