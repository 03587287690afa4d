"""`housekeeping check` and `housekeeping history` on real stores."""

import json
from datetime import datetime

import pytest

from embedded.postgresql import PostgresServer
from tests.acceptance.whole_stack import EXPIRED
from tests.faults.runs.installation import Installation, variables

RUN_KEYS = {
    "id", "operation", "policy", "target", "task_id", "run_by", "started_at", "ended_at", "attempts",
    "stop_reason", "success", "total", "batches", "error", "result",
}  # fmt: skip


def test_check_finds_every_store_and_policy_ready(stack: Installation) -> None:
    answer = stack.housekeeping("check", "--json")

    assert answer.returncode == 0, answer
    shape = json.loads(answer.stdout)
    assert shape["success"] is True
    subjects = {finding["subject"] for finding in shape["findings"] if finding["level"] == "ok"}
    assert {"schedule", "redis_url", "broker_url", "database_url"} <= subjects
    assert "tables.purge events" in subjects
    assert {"occurrences.retention milvaion", "dead_letters.cleanup milvaion"} <= subjects


def test_check_changes_nothing_unless_asked_to_make_the_ledger(
    stack: Installation, postgres: PostgresServer
) -> None:
    untouched = variables(database_url=postgres.create_database("untouched"))
    count = "SELECT count(*) FROM pg_namespace WHERE nspname = 'housekeeping'"
    other = Installation(
        untouched["HOUSEKEEPING__DATABASE_URL"], stack.valkey, stack.folder,
        tables__events__table="events", tables__events__age="at", tables__events__keep_for="1d",
    )  # fmt: skip
    other.rows("CREATE TABLE events (id int PRIMARY KEY, at timestamptz)")
    try:
        looked = other.housekeeping("check")
        assert (looked.returncode, other.rows(count)[0]["count"]) == (0, 0), looked
        assert "will be made on first use" in looked.stdout
        made = other.housekeeping("check", "--init")
        assert (made.returncode, other.rows(count)[0]["count"]) == (0, 1), made
        assert "ledger ready" in made.stdout
    finally:
        other.end()
        postgres.drop_database("untouched")


@pytest.mark.parametrize(
    ("variables_", "level", "told"),
    [
        ({}, "ok", "go: no standby; "),
        (
            {"HOUSEKEEPING__HEALTH__EXPECTED_STANDBYS": "mirror"},
            "warning",
            "replication_lag stop: standby mirror is expected and not connected",
        ),
    ],
    ids=["well", "a standby is missing"],
)
def test_check_tells_once_how_the_database_is(
    stack: Installation, variables_: dict[str, str], level: str, told: str
) -> None:
    answer = stack.housekeeping("check", "--json", **variables_)

    shape = json.loads(answer.stdout)
    (health,) = [f for f in shape["findings"] if f["subject"].startswith("health ")]
    assert (answer.returncode, health["level"]) == (0, level)
    assert health["message"].startswith(told)


@pytest.mark.parametrize("mode", [(), ("--json",)], ids=["text", "json"])
def test_check_tells_what_is_wrong_and_how_to_put_it_right(
    stack: Installation, mode: tuple[str, ...]
) -> None:
    stack.rows(
        "DROP TABLE IF EXISTS parents, children;"
        "CREATE TABLE parents (id int PRIMARY KEY, at timestamptz);"
        "CREATE TABLE children (parent int REFERENCES parents)"
    )
    wrong = variables(
        tables__parents__table="parents", tables__parents__age="at", tables__parents__keep_for="1d",
        tables__evnts__table="evnts", tables__evnts__age="happened_at", tables__evnts__keep_for="1d",
    )  # fmt: skip

    answer = stack.housekeeping("check", *mode, **wrong)

    assert answer.returncode == 65, answer
    assert "CREATE INDEX" in answer.stdout
    assert "there is no table evnts" in answer.stdout
    assert "Traceback" not in answer.stderr
    if mode:
        shape = json.loads(answer.stdout)
        failed = {f["subject"] for f in shape["findings"] if f["level"] == "error"}
        assert shape["success"] is False
        assert failed == {"tables.purge parents", "tables.purge evnts"}


@pytest.mark.parametrize(
    ("setting", "subject"),
    [
        ({"redis_url": "redis://:s3cret@127.0.0.1:1/0"}, "redis_url"),
        ({"broker_url": "redis://:s3cret@127.0.0.1:1/0"}, "broker_url"),
        ({"database_url": "postgresql://u:s3cret@127.0.0.1:1/x"}, "database_url"),
    ],
    ids=["Redis", "the broker", "PostgreSQL"],
)
def test_check_names_a_store_that_is_away_without_its_password(
    stack: Installation, setting: dict[str, object], subject: str
) -> None:
    answer = stack.housekeeping("check", "--json", **variables(**setting))

    assert answer.returncode == 65, answer
    failed = {f["subject"] for f in json.loads(answer.stdout)["findings"] if f["level"] == "error"}
    assert subject in failed
    assert "s3cret" not in answer.stdout + answer.stderr


def test_history_tells_past_runs_newest_first(full: Installation) -> None:
    full.housekeeping("run", "tables.purge", "--policy", "events", "--limit", "5")
    full.housekeeping("run", "tables.purge", "--policy", "events", "--inline")
    full.housekeeping("run", "dead_letters.cleanup")

    everything = full.housekeeping("history", "--json")
    of_one_task = full.housekeeping("history", "--task", "tables.purge", "--since", "1h", "--json")

    runs = json.loads(everything.stdout)
    assert everything.returncode == 0
    assert all(set(run) == RUN_KEYS for run in runs)
    begun = [datetime.fromisoformat(run["started_at"]) for run in runs]
    assert begun == sorted(begun, reverse=True)
    assert runs[0]["operation"] == "dead_letters.cleanup"
    last, before = json.loads(of_one_task.stdout)[:2]
    assert {run["operation"] for run in json.loads(of_one_task.stdout)} == {"tables.purge"}
    assert (before["total"], before["stop_reason"]) == (5, "row_budget")
    assert (last["total"], last["stop_reason"], last["task_id"]) == (EXPIRED - 5, "exhausted", None)


def test_history_knows_no_runs_from_before_its_time(full: Installation) -> None:
    full.housekeeping("run", "tables.purge", "--policy", "events")

    assert json.loads(full.housekeeping("history", "--since", "1ms", "--json").stdout) == []
    assert len(json.loads(full.housekeeping("history", "--limit", "1", "--json").stdout)) == 1


def test_history_in_a_pipe_is_plain_lines_with_a_header(full: Installation) -> None:
    full.housekeeping("run", "tables.purge", "--policy", "events")

    answer = full.housekeeping("history", "--limit", "1")

    header, row = answer.stdout.splitlines()
    assert "\x1b" not in answer.stdout
    assert header.split("\t")[:4] == ["started", "operation", "policy", "stopped"]
    assert row.split("\t")[1:5] == ["tables.purge", "events", "exhausted", "2000"]


def test_check_refuses_policies_that_would_fight_over_rows(stack: Installation) -> None:
    fighting = variables(
        milvaion__retention__completed_keep_for="30d", milvaion__archive__keep_for="90d"
    )
    answer = stack.housekeeping("check", "--json", **fighting)
    assert answer.returncode == 65, answer
    errors = [f for f in json.loads(answer.stdout)["findings"] if f["level"] == "error"]
    assert [finding["subject"] for finding in errors] == ["occurrences.archive milvaion"]
    assert "nothing would be left" in errors[0]["message"]
    peaceful = variables(
        milvaion__archive__keep_for="20d", milvaion__archive__statuses='["completed"]'
    )
    assert stack.housekeeping("check", **peaceful).returncode == 0


def test_an_archive_through_the_command_moves_rows_and_tells_where(stack: Installation) -> None:
    stack.rows(
        "DROP TABLE IF EXISTS parcels CASCADE;"
        "CREATE TABLE parcels (id int PRIMARY KEY, at timestamptz);"
        "INSERT INTO parcels VALUES (1, '2024-01-31 23:59:59+00'), (2, '2024-02-01'), (3, now())"
    )
    archive = variables(
        tables__parcels__table="parcels", tables__parcels__age="at",
        tables__parcels__keep_for="30d", tables__parcels__archive="{}",
    )  # fmt: skip
    words = ("run", "tables.archive", "--policy", "parcels", "--inline")
    dry = stack.housekeeping(*words, "--dry-run", **archive)
    assert dry.returncode == 0, dry
    assert "would archive 2" in dry.stdout
    answer = stack.housekeeping(*words, "--json", **archive)
    assert answer.returncode == 0, answer
    result = json.loads(answer.stdout)
    assert (result["success"], result["total_archived"]) == (True, 2)
    assert [table["table"] for table in result["tables"]] == [
        "public.parcels_archive_2024_01", "public.parcels_archive_2024_02",
    ]  # fmt: skip
    assert stack.rows("SELECT id FROM parcels_archive_2024_02") == [{"id": 2}]
