"""What tests of dry runs share: events with everything that may refer to them, and a plan's facts."""

from typing import Any

from housekeeping.engine.run import Surroundings
from housekeeping.policies.purge import PurgePolicy
from tests.integration.database import Database
from tests.integration.runs import run

NEXT_XID = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text"
CHILDREN = """
    CREATE TABLE logs (id bigint PRIMARY KEY, event bigint REFERENCES events ON DELETE CASCADE);
    CREATE INDEX ON logs (event);
    CREATE TABLE lines (log bigint REFERENCES logs ON DELETE CASCADE);
    CREATE INDEX ON lines (log);
    CREATE TABLE holds (event bigint REFERENCES events);
    CREATE INDEX ON holds (event);
    CREATE TABLE notes (event bigint REFERENCES events ON DELETE SET NULL);
    CREATE INDEX ON notes (event);
    INSERT INTO logs SELECT 2 * id + n, id FROM events, generate_series(0, 1) n;
    INSERT INTO lines SELECT id FROM logs;
    INSERT INTO notes SELECT id FROM events WHERE id % 2 = 0;
"""


def fill(database: Database, days: int = 500) -> None:
    database.run(
        "INSERT INTO events SELECT i, now() - i * interval '1 day',"
        " (ARRAY['done', 'failed'])[1 + i %% 2] FROM generate_series(1, %s) i",
        days,
    )
    database.run("VACUUM ANALYZE")


def plan_of(policy: PurgePolicy, around: Surroundings, **asked: Any) -> dict[str, Any]:
    told = run(policy, around, dry_run=True, **asked)
    assert told.plan is not None
    return dict(told.plan)


def with_family(events: Database) -> Database:
    """Give events children, grandchildren, rows that keep them and rows that forget them."""
    fill(events)
    events.run(CHILDREN)
    events.run("VACUUM ANALYZE")
    return events
