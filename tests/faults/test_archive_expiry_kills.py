"""kill -9 at random moments of exports, drops and restores: every row in one place, once."""

import random
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from embedded.postgresql import PostgresServer
from embedded.valkey import ValkeyServer
from housekeeping.engine.run import Request
from housekeeping.operations.archives.expiry import drop_expired_archives
from housekeeping.operations.archives.restore import restore
from housekeeping.operations.purge import purge
from housekeeping.policies.archive import ArchiveTo
from housekeeping.policies.archives import ArchiveExpiryPolicy, ExportTo, RestorePolicy
from housekeeping.policies.pace import Pace
from housekeeping.policies.purge import Age, ExpiryRule, PurgePolicy, TableName
from housekeeping.policies.result import RunResult
from housekeeping.stores.files.exports import Exports
from tests.faults.killing import Killing, around, execute

KILLS = 20
MONTHS, ROWS = 36, 3_600  # more months than all these runs together get done
PACE = Pace(duty=1, batch_target=timedelta(milliseconds=30), lease_ttl=timedelta(milliseconds=300))
SCHEMA = f"""
CREATE TABLE events (id bigint PRIMARY KEY, at timestamptz NOT NULL, doc jsonb);
CREATE TABLE lines (id bigint PRIMARY KEY, event bigint NOT NULL REFERENCES events ON DELETE CASCADE);
CREATE INDEX ON lines (event);
INSERT INTO events SELECT i, timestamptz '2021-01-15' + i % {MONTHS} * interval '31 days',
    jsonb_build_object('n', i, 'text', repeat('x', i % 90)) FROM generate_series(1, {ROWS}) i;
INSERT INTO lines SELECT i, i FROM generate_series(1, {ROWS}) i;
CREATE TABLE truth AS SELECT id, events::text AS image FROM events;
"""


@pytest.fixture
def database(own_postgres: PostgresServer) -> str:
    url = own_postgres.create_database("going")
    execute(url, SCHEMA)
    return url


def archive(url: str, redis_url: str) -> RunResult:
    policy = PurgePolicy(
        operation="tables.archive",
        name="going",
        database_url=url,
        table=TableName("events"),
        age=Age(columns=("at",)),
        rules=(ExpiryRule(reason="expired", keep_for=timedelta(days=30)),),
        archive=ArchiveTo(prefix="old"),
        pace=PACE,
    )
    return purge(policy, Request(run_by="tester@here"), around(redis_url))


def expire(url: str, redis_url: str, folder: str) -> RunResult:
    policy = ArchiveExpiryPolicy(
        operation="database.drop_expired_archives",
        name="going",
        database_url=url,
        keep_for=timedelta(days=300),
        source=TableName("events"),
        export=ExportTo(url=folder, format="jsonl"),
        pace=PACE,
    )
    return drop_expired_archives(policy, Request(run_by="tester@here"), around(redis_url))


def put_back(url: str, redis_url: str, folder: str) -> None:
    """Put every exported month back."""
    for _, manifest in exported(url):
        policy = RestorePolicy(
            operation="archives.restore",
            name="restore",
            database_url=url,
            manifest_url=f"{folder}/{Path(manifest).name}",
            pace=PACE,
        )
        assert restore(policy, Request(run_by="tester@here"), around(redis_url)).success


def exported(url: str) -> list[tuple[str, str]]:
    return execute(  # type: ignore[return-value]
        url,
        "SELECT relation, exported ->> 'manifest' FROM housekeeping.archive_table"
        " WHERE part_of IS NULL AND dropped_at IS NOT NULL ORDER BY 1",
    )


def killing(work: Callable[..., object], *words: str) -> Killing:
    return Killing(work, words, at_any_moment=0.25, longest=(0.7, 0.1))


@pytest.mark.timeout(240)
def test_killed_at_any_moment_no_row_is_lost_and_none_comes_back_twice(
    database: str, own_valkey: ValkeyServer, moments: random.Random, tmp_path: Path
) -> None:
    folder, redis_url = str(tmp_path), own_valkey.url()
    assert archive(database, redis_url).total == ROWS

    at_work = killing(expire, database, redis_url, folder).kill(KILLS, moments)
    left = execute(
        database, "SELECT count(*) FROM housekeeping.archive_table WHERE dropped_at IS NULL"
    )
    assert at_work >= KILLS / 4, "too few kills hit a run at work"
    result = expire(database, redis_url, folder)

    assert result.success, result
    assert result.total == left[0][0]
    assert execute(database, "SELECT count(*) FROM events") == [(0,)]
    exports = Exports(ExportTo(url=folder, format="csv"))
    found = [
        row[0]
        for _, manifest in exported(database)
        for batch in exports.rows(exports.manifest(Path(manifest).name))
        for row in batch
    ]
    assert sorted(map(int, found)) == list(range(1, ROWS + 1))  # type: ignore[arg-type]

    at_work = killing(put_back, database, redis_url, folder).kill(KILLS // 2, moments)
    assert at_work >= KILLS / 8, "too few kills hit a restore at work"
    put_back(database, redis_url, folder)

    differing = (
        "SELECT * FROM truth t FULL JOIN events e USING (id) WHERE t.image IS DISTINCT FROM e::text"
    )
    assert execute(database, differing) == []
    assert execute(database, "SELECT count(*), count(DISTINCT event) FROM lines") == [(ROWS, ROWS)]
