"""kill -9 at random moments of exports, drops and restores: every row in one place, once."""

import multiprocessing
import random
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from embedded.installations import PostgresInstallation
from embedded.postgresql import PostgresServer, installations
from embedded.valkey import ValkeyServer
from housekeeping.engine.run import Request, Surroundings
from housekeeping.operations.archive_expiry import drop_expired_archives
from housekeeping.operations.purge import purge
from housekeeping.operations.restore import restore
from housekeeping.policies.archive import ArchiveTo
from housekeeping.policies.archives import ArchiveExpiryPolicy, ExportTo, RestorePolicy
from housekeeping.policies.pace import Pace
from housekeeping.policies.purge import Age, ExpiryRule, PurgePolicy, TableName
from housekeeping.policies.result import RunResult
from housekeeping.stores.files.exports import Exports
from housekeeping.stores.redis.connection import connect
from tests.conditions import stays_true, wait_until

KILLS = 20
MONTHS, ROWS = 36, 3_600
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


@pytest.fixture(params=installations(), ids=lambda each: each.name)
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    installation: PostgresInstallation = request.param
    with PostgresServer(installation) as server:
        url = server.create_database("going")
        execute(url, SCHEMA)
        yield url


@pytest.fixture(scope="module")
def valkey() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


def execute(url: str, statement: str) -> list[tuple[Any, ...]]:
    with closing(psycopg2.connect(url)) as session, session, session.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def around(redis_url: str) -> Surroundings:
    return Surroundings(connect(redis_url))


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


def runs_that_did_something(url: str, walk: str = "drop") -> int:
    ((runs,),) = execute(
        url, f"SELECT count(DISTINCT run_id) FROM housekeeping.run_window WHERE walk LIKE '{walk}'"
    )
    return int(runs)


def killed(moments: random.Random, work: Callable[..., object], *words: str, within: float) -> None:
    """Begin some work in a process of its own, and kill it at some moment."""
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(["tests.faults.test_archive_expiry_kills"])
    child = forking.Process(target=work, args=words)
    child.start()
    stays_true(child.is_alive, moments.uniform(0, within))
    child.kill()
    child.join()
    with closing(connect(words[1])) as client:
        wait_until(lambda: not list(client.scan_iter("{housekeeping:lease:*")), 5)


@pytest.mark.timeout(240)
def test_killed_at_any_moment_no_row_is_lost_and_none_comes_back_twice(
    database: str, valkey: ValkeyServer, tmp_path: Path
) -> None:
    seed = random.SystemRandom().randrange(1_000_000)
    print(f"moments = random.Random({seed})")  # noqa: T201 - pytest shows it for a failed test
    moments, folder = random.Random(seed), str(tmp_path)
    assert archive(database, valkey.url()).total == ROWS

    for _ in range(KILLS):
        killed(moments, expire, database, valkey.url(), folder, within=0.7)
    left = execute(
        database, "SELECT count(*) FROM housekeeping.archive_table WHERE dropped_at IS NULL"
    )
    assert runs_that_did_something(database) > KILLS / 8, "most kills hit no run at work"
    result = expire(database, valkey.url(), folder)

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

    for _ in range(KILLS // 2):
        killed(moments, put_back, database, valkey.url(), folder, within=1.0)
    assert runs_that_did_something(database, "restore%") > KILLS / 8
    put_back(database, valkey.url(), folder)

    differing = (
        "SELECT * FROM truth t FULL JOIN events e USING (id) WHERE t.image IS DISTINCT FROM e::text"
    )
    assert execute(database, differing) == []
    assert execute(database, "SELECT count(*), count(DISTINCT event) FROM lines") == [(ROWS, ROWS)]
