"""kill -9 between a partition's export and its drop: no row is lost, and none is exported twice."""

import random
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from embedded.postgresql import PostgresServer
from embedded.valkey import ValkeyServer
from housekeeping.engine.run import Request
from housekeeping.operations.archives.restore import restore
from housekeeping.operations.purge import purge
from housekeeping.policies.archives import ExportTo, RestorePolicy
from housekeeping.policies.pace import Pace
from housekeeping.policies.purge import Age, ExpiryRule, PartitionCare, PurgePolicy, TableName
from housekeeping.policies.result import RunResult
from housekeeping.stores.files.exports import Exports
from tests.faults.killing import Killing, around, execute

KILLS = 10
PACE = Pace(duty=1, batch_target=timedelta(milliseconds=30), lease_ttl=timedelta(milliseconds=300))
MONTHS, ROWS = 60, 6_000  # more months than all these runs together get done
SCHEMA = f"""
CREATE TABLE events (id bigint, at timestamptz NOT NULL, doc jsonb) PARTITION BY RANGE (at);
DO $$ BEGIN FOR i IN 0..{MONTHS - 1} LOOP
    EXECUTE format('CREATE TABLE m%s PARTITION OF events FOR VALUES FROM (%L) TO (%L)', i,
        timestamptz '2015-01-01 UTC' + i * interval '31 days',
        timestamptz '2015-01-01 UTC' + (i + 1) * interval '31 days');
END LOOP; END $$;
CREATE TABLE now PARTITION OF events FOR VALUES FROM ('2024-01-01 UTC') TO (MAXVALUE);
INSERT INTO events SELECT i, timestamptz '2015-01-15 UTC' + i % {MONTHS} * interval '31 days',
    jsonb_build_object('n', i, 'text', repeat('x', i % 90)) FROM generate_series(1, {ROWS}) i;
CREATE TABLE truth AS SELECT id, events::text AS image FROM events;
"""


@pytest.fixture
def database(own_postgres: PostgresServer) -> str:
    url = own_postgres.create_database("going")
    execute(url, SCHEMA)
    return url


def going(url: str, redis_url: str, folder: str) -> RunResult:
    """Detach what expired; export and drop what was detached before."""
    policy = PurgePolicy(
        operation="tables.purge",
        name="going",
        database_url=url,
        table=TableName("events"),
        age=Age(columns=("at",)),
        rules=(ExpiryRule(reason="expired", keep_for=timedelta(days=30)),),
        partitions=PartitionCare(
            grace=timedelta(0), export=ExportTo(url=folder, format="jsonl", compression="none")
        ),
        pace=PACE,
    )
    return purge(policy, Request(run_by="tester@here"), around(redis_url))


def put_back(url: str, redis_url: str, manifest: Path) -> RunResult:
    policy = RestorePolicy(
        operation="archives.restore",
        name="restore",
        database_url=url,
        manifest_url=str(manifest),
        pace=PACE,
    )
    return restore(policy, Request(run_by="tester@here"), around(redis_url))


@pytest.mark.timeout(240)
def test_killed_at_any_moment_every_partition_is_exported_once_and_comes_back(
    database: str, own_valkey: ValkeyServer, moments: random.Random, tmp_path: Path
) -> None:
    folder, redis_url = str(tmp_path), own_valkey.url()
    assert going(database, redis_url, folder).details["partitions_detached"] == MONTHS

    killing = Killing(going, (database, redis_url, folder), 0.25, (0.7, 0.1))
    at_work = killing.kill(KILLS, moments)
    assert at_work >= KILLS / 4, "too few kills hit a run at work"
    result = going(database, redis_url, folder)

    assert result.success, result
    assert result.details["partitions_dropped"] > 0
    done = Counter(
        dict(
            execute(
                database,
                "SELECT key, sum(value::bigint)::int FROM housekeeping.run_window,"
                " jsonb_each_text(counts) GROUP BY key",
            )
        )
    )
    assert (done["partitions_exported"], done["partitions_dropped"]) == (MONTHS, MONTHS)
    names = sorted(f"public.m{month}" for month in range(MONTHS))
    # A probe of the place may be left by a process that was killed while it tried it.
    found = sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".probe")
    assert found == sorted(f"{n}{end}" for n in names for end in (".jsonl", ".manifest.json"))
    exports = Exports(ExportTo(url=folder, format="csv"))
    rows = [
        row[0]
        for name in names
        for batch in exports.rows(exports.manifest(f"{name}.manifest.json"))
        for row in batch
    ]
    assert sorted(map(int, rows)) == list(range(1, ROWS + 1))  # type: ignore[arg-type]

    execute(database, "CREATE TABLE rest PARTITION OF events DEFAULT")
    for name in names[:5]:
        assert put_back(database, redis_url, tmp_path / f"{name}.manifest.json").success
    differing = (
        "SELECT * FROM events e LEFT JOIN truth t USING (id) WHERE t.image IS DISTINCT FROM e::text"
    )
    assert execute(database, differing) == []
    assert execute(database, "SELECT count(*) FROM events") == [(5 * ROWS // MONTHS,)]
