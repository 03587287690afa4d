"""A partition's whole way as an operator goes it: detached, exported, dropped, put back by its name."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded.postgresql import PostgresServer
from embedded.valkey import ValkeyServer
from tests.acceptance.whole_stack import done
from tests.faults.runs.installation import Installation

FILL = """
CREATE TABLE events (id bigint, at timestamptz NOT NULL, note text) PARTITION BY RANGE (at);
CREATE TABLE events_2024_01 PARTITION OF events FOR VALUES FROM ('2024-01-01 UTC') TO ('2024-02-01 UTC');
CREATE TABLE events_now PARTITION OF events FOR VALUES FROM ('2024-02-01 UTC') TO (MAXVALUE);
INSERT INTO events SELECT i, '2024-01-10', 'note ' || i FROM generate_series(1, 1500) i;
INSERT INTO events VALUES (9999, now(), 'young');
"""
RUN = ("run", "tables.purge", "--inline")


@pytest.fixture
def installation(postgres: PostgresServer, tmp_path: Path) -> Iterator[Installation]:
    """Events that go by whole months after 30 days, exported before."""
    exports = tmp_path / "exports"
    exports.mkdir()
    database = postgres.create_database("parted")
    with ValkeyServer() as valkey:
        installation = Installation(
            database,
            valkey,
            tmp_path,
            tables__events__table="events",
            tables__events__age="at",
            tables__events__keep_for="30d",
            tables__events__partition_grace="0s",
            tables__events__partition_export_to=str(exports),
            tables__events__partition_format="csv",
        )
        installation.rows(FILL)
        yield installation
        installation.end()
    postgres.drop_database("parted")


def test_a_partition_goes_all_the_way_and_comes_back(installation: Installation) -> None:
    before = installation.rows("SELECT * FROM events ORDER BY id")
    assert done(installation, *RUN)["details"]["partitions_detached"] == 1
    planned = done(installation, *RUN, "--dry-run")
    assert "would be exported to" in planned["plan"]["because"]
    dropped = done(installation, *RUN)
    assert dropped["details"]["partitions_exported"] == 1
    assert dropped["details"]["partitions_dropped"] == 1

    refused = installation.housekeeping("restore", "events_2024_01")
    assert refused.returncode == 65
    assert "Traceback" not in refused.stderr
    statement = next(
        line for line in refused.stderr.splitlines() if line.strip().startswith("CREATE TABLE")
    )
    installation.rows(statement)
    back = done(installation, "restore", "events_2024_01")
    assert back["total_restored"] == 1_500
    assert any("housekeeping pause tables.purge" in warning for warning in back["warnings"])
    assert installation.rows("SELECT * FROM events ORDER BY id") == before
    again = done(installation, "restore", dropped["tables"][0]["exported_to"])
    assert again["total_restored"] == 0


def test_check_tells_of_a_place_that_is_not_there(installation: Installation) -> None:
    answer = installation.housekeeping("check", "--init")
    assert answer.returncode == 0, answer
    wrong = {"HOUSEKEEPING__TABLES__EVENTS__PARTITION_EXPORT_TO": "/nowhere/at/all"}
    answer = installation.housekeeping("check", **wrong)
    assert answer.returncode == 65
    assert "there is no such folder; make it" in answer.stdout
