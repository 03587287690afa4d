"""Tables for the command line's tests: one quick, one slow, and Milvaion's own."""

import json
from contextlib import closing
from typing import Any

import psycopg2

from demo import milvaion
from tests.faults.runs.installation import Installation

EXPIRED, KEPT = 2_000, 500
SLOW_EXPIRED = 6_000
OCCURRENCES = 4_000
LEASE_SECONDS = 2

SETTINGS: dict[str, object] = {
    "lease_ttl": f"{LEASE_SECONDS}s",
    "visibility_timeout": "5s",
    "milvaion": "{}",
    "tables__events__table": "events",
    "tables__events__age": "happened_at",
    "tables__events__keep_for": "30d",
    "tables__slow__table": "slow_events",
    "tables__slow__age": "happened_at",
    "tables__slow__keep_for": "30d",
    "tables__slow__batch_target": "10ms",
    "tables__slow__batch_rows": 50,
    "tables__slow__duty": 0.03,
}

_MAKE = """
CREATE TABLE events (id bigint PRIMARY KEY, happened_at timestamptz NOT NULL);
CREATE TABLE slow_events (id bigint PRIMARY KEY, happened_at timestamptz NOT NULL);
CREATE FUNCTION take_your_time() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN
    IF OLD.id % 20 = 0 THEN PERFORM pg_sleep(0.001); END IF;
    RETURN OLD;
END $$;
CREATE TRIGGER slow BEFORE DELETE ON slow_events FOR EACH ROW EXECUTE FUNCTION take_your_time();
"""
_REFILL = """
DROP TRIGGER IF EXISTS broken ON events;
TRUNCATE {table};
INSERT INTO {table} SELECT i, now() - CASE WHEN i <= {expired} THEN interval '60 days'
    ELSE interval '1 day' END FROM generate_series(1, {expired} + {kept}) i;
ANALYZE {table};
"""
# After every check has passed, the DELETE itself fails: no smaller window would help.
BREAK_DELETES = """
CREATE OR REPLACE FUNCTION note_deleted() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN INSERT INTO table_that_is_gone VALUES (OLD.id); RETURN OLD; END $$;
CREATE TRIGGER broken BEFORE DELETE ON events FOR EACH ROW EXECUTE FUNCTION note_deleted();
"""


def make_tables(database: str) -> None:
    """Make all tables; fill Milvaion's."""
    with closing(psycopg2.connect(database)) as connection:
        with connection.cursor() as cursor:
            cursor.execute(_MAKE)
        milvaion.fill(connection, OCCURRENCES)
        connection.commit()


def refill(installation: Installation) -> None:
    """Put all events back."""
    for table, expired in (("events", EXPIRED), ("slow_events", SLOW_EXPIRED)):
        installation.rows(_REFILL.format(table=table, expired=expired, kept=KEPT))


def left(installation: Installation, table: str = "events") -> int:
    """How many rows a table holds."""
    (row,) = installation.rows(f"SELECT count(*) AS rows FROM {table}")
    return int(row["rows"])


def done(installation: Installation, *words: str, code: int = 0) -> dict[str, Any]:
    """Call our program; return what it told as JSON."""
    answer = installation.housekeeping(*words, "--json")
    assert answer.returncode == code, answer
    shape: dict[str, Any] = json.loads(answer.stdout)
    return shape
