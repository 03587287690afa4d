"""What Prometheus scrapes from a worker with two processes."""

import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from embedded.ports import free_port
from embedded.postgresql import PostgresServer
from embedded.valkey import ValkeyServer
from tests.conditions import wait_until
from tests.faults.runs.installation import Installation

FILL = """
    CREATE TABLE events AS SELECT i AS id, now() - i * interval '1 hour' AS at
    FROM generate_series(1, 1000) i
"""


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    with PostgresServer() as postgres, ValkeyServer() as valkey:
        database = postgres.create_database("metrics")
        with closing(psycopg2.connect(database)) as connection, connection:
            connection.cursor().execute(FILL)
        policy = {
            "tables__events__table": "events",
            "tables__events__age": "at",
            "tables__events__keep_for": "10d",
        }
        installed = Installation(database, valkey, tmp_path, metrics_port=free_port(), **policy)
        try:
            yield installed
        finally:
            installed.end()


def test_a_worker_serves_what_its_children_counted(installation: Installation) -> None:
    installation.worker("--concurrency=2")

    installation.outcome(installation.send()).get()
    installation.outcome(installation.send()).get()

    port = installation.environment["HOUSEKEEPING__METRICS_PORT"]

    def scraped() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    who = 'operation="tables.purge",policy="events"'
    wait_until(lambda: f"housekeeping_runs_total{{{who}" in scraped(), within_seconds=10)
    told = scraped()
    assert f'housekeeping_runs_total{{{who},stop_reason="exhausted"}} 2.0' in told
    assert f'housekeeping_rows_total{{{who},reason="expired"}} 761.0' in told
    assert f"housekeeping_last_success_timestamp_seconds{{{who}}}" in told
    assert "housekeeping_window_seconds_bucket" in told
