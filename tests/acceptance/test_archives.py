"""A month's whole way as an operator goes it: archived, exported, dropped, put back."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded.postgresql import PostgresServer
from embedded.valkey import ValkeyServer
from tests.acceptance.whole_stack import done
from tests.faults.runs.installation import Installation

FILL = """
CREATE TABLE IF NOT EXISTS events (id bigint PRIMARY KEY, at timestamptz NOT NULL, note text);
INSERT INTO events SELECT i, '2024-01-10', 'note ' || i FROM generate_series(1, 1500) i;
INSERT INTO events VALUES (9999, now(), 'young');
"""
DROP = ("run", "database.drop_expired_archives", "--inline")


@pytest.fixture
def installation(postgres: PostgresServer, tmp_path: Path) -> Iterator[Installation]:
    """Events archived after 30 days and dropped after a year, exported before."""
    exports = tmp_path / "exports"
    exports.mkdir()
    database = postgres.create_database("archives")
    with ValkeyServer() as valkey:
        installation = Installation(
            database,
            valkey,
            tmp_path,
            tables__events__table="events",
            tables__events__age="at",
            tables__events__keep_for="30d",
            tables__events__archive="{}",
            archives__events__source="events",
            archives__events__keep_for="365d",
            archives__events__export_to=str(exports),
            archives__events__format="csv",
        )
        installation.rows(FILL)
        yield installation
        installation.end()
    postgres.drop_database("archives")


def events(installation: Installation) -> int:
    return int(installation.rows("SELECT count(*) FROM events")[0]["count"])


def test_a_month_goes_all_the_way_and_comes_back(installation: Installation) -> None:
    before = installation.rows("SELECT * FROM events ORDER BY id")
    assert done(installation, "run", "tables.archive", "--inline")["total_archived"] == 1_500
    assert events(installation) == 1

    live = done(installation, "restore", "events_archive_2024_01")
    assert live["total_restored"] == 1_500
    assert any("housekeeping pause tables.archive" in warning for warning in live["warnings"])
    assert installation.rows("SELECT * FROM events ORDER BY id") == before

    assert done(installation, "run", "tables.archive", "--inline")["total_archived"] == 1_500
    planned = done(installation, *DROP, "--dry-run")
    assert planned["plan"]["would_drop"] == 1
    assert planned["tables"][0]["done"] == "would be dropped"
    dropped = done(installation, *DROP)
    assert dropped["total_cleaned"] == dropped["details"]["tables_exported"] == 1
    assert (
        installation.rows("SELECT to_regclass('events_archive_2024_01') AS gone")[0]["gone"] is None
    )

    shown = installation.housekeeping("restore", "events_archive_2024_01", "--dry-run")
    assert (shown.returncode, events(installation)) == (0, 1)
    assert "would restore at most 1,500" in shown.stdout
    back = installation.housekeeping("restore", dropped["tables"][0]["exported_to"])
    assert back.returncode == 0, back
    assert "archives.restore" in back.stdout
    assert installation.rows("SELECT * FROM events ORDER BY id") == before
    again = done(installation, "restore", "events_archive_2024_01")
    assert (again["total_restored"], again["details"]["already_there"]) == (0, 1_500)

    history = json.loads(installation.housekeeping("history", "--json").stdout)
    assert {run["operation"] for run in history} == {
        "tables.archive",
        "archives.restore",
        "database.drop_expired_archives",
    }


def test_check_tells_of_archives_and_of_a_place_that_is_not_there(
    installation: Installation,
) -> None:
    answer = installation.housekeeping("check", "--init")
    assert answer.returncode == 0, answer
    assert "0 of 0 dated tables would go" in answer.stdout
    wrong = {"HOUSEKEEPING__ARCHIVES__EVENTS__EXPORT_TO": "/nowhere/at/all"}
    answer = installation.housekeeping("check", **wrong)
    assert answer.returncode == 65
    assert "there is no such folder; make it" in answer.stdout


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ((), 64, "Missing argument"),
        (("events_archive_2042_01",), 64, "knows no archived table"),
        (("events",), 64, "knows no archived table"),
        (("s3://bucket/x.csv.gz",), 64, "ends in .manifest.json"),
        (("x", "--policy", "evnts"), 64, "Did you mean 'events'?"),
        (("x", "--database", "mysql://me:sEcr3t@h/d"), 64, "mysql:// is not accepted"),
        (("x", "--database", "postgresql://h/d", "--policy", "events"), 64, "give one of"),
        (("/nowhere/x.manifest.json",), 1, "x.manifest.json can't be used: there is no such file"),
        (
            ("exports/x.parquet",),
            64,
            "exports/x.parquet is no manifest: give the address that ends",
        ),
        (("http://h/x.manifest.json",), 65, "can't be kept"),
        (("x", "--drop-colums"), 64, "--drop-columns"),
    ],
)
def test_a_wrong_thing_typed_is_told_in_a_line(
    installation: Installation, words: tuple[str, ...], code: int, told: str
) -> None:
    answer = installation.housekeeping("restore", *words)
    assert (answer.returncode, told in answer.stderr) == (code, True), answer
    assert "Traceback" not in answer.stderr
    assert "sEcr3t" not in answer.stderr + answer.stdout
