"""How a test archives, and what the ledger says of it."""

from pathlib import Path
from typing import Any

from housekeeping.policies.archive import ArchiveTo
from housekeeping.policies.purge import PurgePolicy, TableName
from tests.integration.database import Database
from tests.integration.runs import policy_on

EVERY_TYPE = Path(__file__).with_name("every_type.sql").read_text()
"""makes a table `everything` with a column of each type"""


def to(prefix: str = "events_archive", **given: Any) -> ArchiveTo:
    return ArchiveTo(prefix=prefix, **given)


def archiving(database: Database, table: str | TableName = "events", **given: Any) -> PurgePolicy:
    return policy_on(
        database, table, **{"operation": "tables.archive", "name": "old", "archive": to(), **given}
    )


def archived(database: Database) -> dict[str, int]:
    """What the ledger says each dated table holds, checked against the tables."""
    known = dict(database.rows("SELECT relation, rows FROM housekeeping.archive_table ORDER BY 1"))
    for relation, rows in known.items():
        schema, _, name = relation.partition(".")
        assert database.count(f'"{schema}"."{name}"') == rows, relation
    return {relation.partition(".")[2]: rows for relation, rows in known.items()}


def fill(database: Database, rows: int = 5_000, every: str = "20 minutes") -> None:
    database.run(
        "INSERT INTO events SELECT i, now() - i * %s::interval, 'a', repeat('n', 20)"
        " FROM generate_series(1, %s) i",
        every,
        rows,
    )
    database.run("ANALYZE events")
