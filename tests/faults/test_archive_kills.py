"""kill -9 at random moments of an archive run, with users writing: every row whole, in one place."""

import random
import threading
from contextlib import closing
from datetime import timedelta
from typing import Any

import psycopg2
import pytest

from embedded.postgresql import PostgresServer
from embedded.valkey import ValkeyServer
from housekeeping.engine.run import Request
from housekeeping.operations.purge import purge
from housekeeping.policies.archive import ArchiveTo
from housekeeping.policies.pace import Pace
from housekeeping.policies.purge import Age, ExpiryRule, PurgePolicy, TableName
from housekeeping.policies.result import RunResult
from tests.faults.killing import Killing, around, execute

KILLS = 55
AT_ANY_MOMENT = 0.2  # of the kills, mostly in the beginning; the others once something has moved
OLD = 40_000

# `truth` is written by a trigger, so it holds what each row last was when it was in the table. A row
# takes a while to be deleted, so that runs are long enough to be killed at any point.
SCHEMA = f"""
CREATE TABLE events (id bigint PRIMARY KEY, at timestamptz NOT NULL, version int NOT NULL DEFAULT 0,
    doc jsonb, twice bigint GENERATED ALWAYS AS (id * 2) STORED);
CREATE TABLE lines (id bigserial PRIMARY KEY, event bigint NOT NULL REFERENCES events ON DELETE CASCADE,
    words text);
CREATE INDEX ON lines (event);
CREATE TABLE truth (kind text, id bigint, image text, PRIMARY KEY (kind, id));
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO truth VALUES (TG_TABLE_NAME, NEW.id, NEW::text)
    ON CONFLICT (kind, id) DO UPDATE SET image = excluded.image;
    RETURN NULL;
END $$;
CREATE TRIGGER tell AFTER INSERT OR UPDATE ON events FOR EACH ROW EXECUTE FUNCTION tell();
CREATE TRIGGER tell AFTER INSERT OR UPDATE ON lines FOR EACH ROW EXECUTE FUNCTION tell();
CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF OLD.id % 16 = 0 THEN PERFORM pg_sleep(0.001); END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER linger AFTER DELETE ON events FOR EACH ROW EXECUTE FUNCTION linger();
INSERT INTO events (id, at, doc) SELECT i, now() - interval '31 days' - i % 200 * interval '1 day',
    jsonb_build_object('n', i, 'text', repeat('x', i % 50)) FROM generate_series(1, {OLD}) i;
INSERT INTO lines (event, words) SELECT 1 + i % {OLD}, 'line ' || i FROM generate_series(1, {OLD}) i;
ANALYZE;
"""
# In every place a row can be, its image in the columns of its source.
PLACES = """
SELECT 'events', id, ROW(id, at, version, doc, twice)::text FROM {events}
UNION ALL SELECT 'lines', id, ROW(id, event, words)::text FROM {lines}
"""


@pytest.fixture
def database(own_postgres: PostgresServer) -> str:
    url = own_postgres.create_database("moving")
    execute(url, SCHEMA)
    return url


def policy_for(url: str) -> PurgePolicy:
    return PurgePolicy(
        operation="tables.archive",
        name="moving",
        database_url=url,
        table=TableName("events"),
        age=Age(columns=("at",)),
        rules=(ExpiryRule(reason="expired", keep_for=timedelta(days=30)),),
        archive=ArchiveTo(prefix="old"),
        pace=Pace(
            duty=1,
            batch_target=timedelta(milliseconds=30),
            lease_ttl=timedelta(milliseconds=300),
            lock_timeout=timedelta(milliseconds=100),
        ),
    )


def archive(url: str, redis_url: str) -> RunResult:
    return purge(policy_for(url), Request(run_by="tester@here"), around(redis_url))


class Users(threading.Thread):
    """Writes beside the run: new rows old and young, retries of old ones, new lines of old rows."""

    def __init__(self, url: str, moments: random.Random) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._moments = moments
        self._ended = threading.Event()
        self.written = 0

    def run(self) -> None:
        with closing(psycopg2.connect(self._url)) as session:
            session.autocommit = True
            number = OLD
            while not self._ended.wait(0.002):
                number += 1
                with session.cursor() as cursor:
                    self._write(cursor, number)
                self.written += 1

    def _write(self, cursor: psycopg2.extensions.cursor, number: int) -> None:
        some = self._moments.randrange(1, number)
        cursor.execute(
            "INSERT INTO events (id, at) VALUES (%s, now() - %s * interval '1 day')",
            (number, self._moments.choice((1, 29, 31, 400))),
        )
        if number % 3 == 0:  # retried: it no longer expires
            cursor.execute(
                "UPDATE events SET at = now(), version = version + 1 WHERE id = %s", (some,)
            )
        elif number % 3 == 1:
            cursor.execute("UPDATE events SET version = version + 1 WHERE id = %s", (some,))
        else:
            cursor.execute(
                "INSERT INTO lines (event, words)"
                " SELECT id, 'late' FROM events WHERE id = %s FOR SHARE",
                (some,),
            )

    def end(self) -> None:
        self._ended.set()
        self.join()


@pytest.mark.timeout(240)
def test_fifty_five_kills_lose_no_row_and_keep_none_twice(
    database: str, own_valkey: ValkeyServer, moments: random.Random
) -> None:
    users = Users(database, random.Random(moments.random()))
    users.start()
    killing = Killing(archive, (database, own_valkey.url()), AT_ANY_MOMENT, (0.15, 0.15))
    killing.kill(KILLS, moments)
    users.end()
    assert users.written > 500
    moving = "SELECT count(DISTINCT run_id) FROM housekeeping.run_window"
    assert execute(database, moving)[0][0] > KILLS / 4, "most kills hit no run that moved rows"

    result = settled(database, own_valkey.url())

    assert result.success, result
    assert account(database) == []
    assert ledger_differs(database) == []


def settled(database: str, redis_url: str) -> RunResult:
    """Run until nothing is left to do: a row a user held may have stayed the first time."""
    archive(database, redis_url)
    return archive(database, redis_url)


def account(database: str) -> list[tuple[Any, ...]]:
    """Return every row that is missing, doubled or changed; and what should have moved and did not."""
    tables = [
        row[0] for row in execute(database, "SELECT relation FROM housekeeping.archive_table")
    ]
    events = ["events", *(name for name in tables if not name.endswith("_lines"))]
    lines = ["lines", *(name for name in tables if name.endswith("_lines"))]
    everywhere = " UNION ALL ".join(
        [PLACES.format(events=name, lines="lines WHERE false") for name in events]
        + [PLACES.format(events="events WHERE false", lines=name) for name in lines]
    )
    wrong = execute(
        database,
        f"WITH places (kind, id, image) AS ({everywhere}),"
        " found AS (SELECT kind, id, min(image) AS image, count(*) AS copies FROM places GROUP BY 1, 2)"
        " SELECT kind, id, t.image, f.image, f.copies FROM truth t FULL JOIN found f USING (kind, id)"
        " WHERE t.image IS DISTINCT FROM f.image OR f.copies <> 1 LIMIT 20",
    )
    left = "SELECT 'left', id FROM events WHERE at < now() - interval '30 days 1 hour' LIMIT 20"
    return wrong + execute(database, left)


def ledger_differs(database: str) -> list[tuple[Any, ...]]:
    """Return dated tables whose rows are not what the ledger counted, and runs that never ended."""
    differs = []
    for relation, rows in execute(
        database, "SELECT relation, rows FROM housekeeping.archive_table"
    ):
        ((found,),) = execute(database, f"SELECT count(*) FROM {relation}")
        if found != rows:
            differs.append((relation, rows, found))
    return differs + execute(database, "SELECT id FROM housekeeping.run WHERE ended_at IS NULL")
