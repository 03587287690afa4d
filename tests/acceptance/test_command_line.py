"""`housekeeping run` as its users run it: a program of its own, on real servers."""

import json
import subprocess
from copy import copy
from typing import Any

import pytest

from tests.acceptance.whole_stack import (
    BREAK_DELETES,
    EXPIRED,
    KEPT,
    LEASE_SECONDS,
    OCCURRENCES,
    left,
)
from tests.conditions import wait_until
from tests.faults.runs.installation import Installation, variables

RUN = ("run", "tables.purge", "--policy", "events")
RESULT_KEYS = {
    "success", "operation", "policy", "run_id", "stop_reason", "dry_run", "total_deleted", "details",
    "cutoffs", "batches", "seconds", "phases", "oldest_expired_age_seconds", "warnings",
}  # fmt: skip
MODES = pytest.mark.parametrize("mode", [(), ("--inline",)], ids=["queue", "inline"])
Mode = tuple[str, ...]


def parsed(answer: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    """The one JSON object on stdout; anything else there fails."""
    shape = json.loads(answer.stdout)
    assert isinstance(shape, dict)
    return shape


@MODES
def test_a_run_deletes_what_expired_and_nothing_else(full: Installation, mode: Mode) -> None:
    answer = full.housekeeping(*RUN, *mode)

    assert answer.returncode == 0, answer.stderr
    assert left(full) == KEPT
    assert "2,000" in answer.stdout
    assert "exhausted" in answer.stdout


@MODES
def test_json_is_one_object_with_the_contracts_keys(full: Installation, mode: Mode) -> None:
    answer = full.housekeeping(*RUN, "--json", *mode)

    shape = parsed(answer)
    assert answer.returncode == 0
    assert set(shape) == RESULT_KEYS
    assert set(shape["phases"]) == {"probe", "delete", "commit", "wait"}
    assert (shape["success"], shape["stop_reason"], shape["dry_run"]) == (True, "exhausted", False)
    assert (shape["operation"], shape["policy"]) == ("tables.purge", "events")
    assert shape["total_deleted"] == shape["details"]["expired"] == EXPIRED
    assert all(isinstance(count, int) for count in shape["details"].values())


@MODES
def test_a_dry_run_counts_the_same_rows_and_changes_nothing(full: Installation, mode: Mode) -> None:
    before = (left(full), full.runs(), full.windows())

    answer = full.housekeeping(*RUN, "--dry-run", "--json", *mode)

    shape = parsed(answer)
    assert answer.returncode == 0
    assert (shape["dry_run"], shape["stop_reason"], shape["total_deleted"]) == (True, "dry_run", 0)
    assert shape["plan"]["would_delete"] == EXPIRED
    assert (left(full), full.runs(), full.windows()) == before


@MODES
def test_a_limit_is_exact_and_the_run_is_partial(full: Installation, mode: Mode) -> None:
    answer = full.housekeeping(*RUN, "--limit", "777", "--json", *mode)

    shape = parsed(answer)
    assert answer.returncode == 2
    assert (shape["stop_reason"], shape["success"]) == ("row_budget", False)
    assert shape["total_deleted"] == 777
    assert left(full) == EXPIRED + KEPT - 777


@MODES
def test_a_statement_that_fails_is_exit_1_with_its_reason(full: Installation, mode: Mode) -> None:
    full.rows(BREAK_DELETES)

    answer = full.housekeeping(*RUN, "--json", *mode)

    shape = parsed(answer)
    assert answer.returncode == 1
    assert (shape["stop_reason"], shape["success"], shape["total_deleted"]) == ("error", False, 0)
    assert "table_that_is_gone" in shape["error"]
    assert left(full) == EXPIRED + KEPT
    assert "Traceback" not in full.housekeeping(*RUN, *mode).stderr


@MODES
def test_a_run_beside_another_on_the_same_table_is_skipped_with_exit_3(
    full: Installation, mode: Mode
) -> None:
    policy = ("run", "tables.purge", "--policy", "slow")
    before = len(full.windows())
    holder = full.start(["housekeeping", *policy, "--inline"], f"holder{len(mode)}")
    wait_until(lambda: len(full.windows()) > before, 20, otherwise=full.told)

    answer = full.housekeeping(*policy, "--json", *mode)

    shape = parsed(answer)
    assert answer.returncode == 3
    assert (shape["stop_reason"], shape["success"], shape["total_deleted"]) == ("locked", False, 0)
    assert holder.running
    holder.kill()
    wait_until(
        lambda: full.housekeeping(*policy, "--limit", "1", "--inline").returncode == 2,
        LEASE_SECONDS + 8,
        otherwise=full.told,
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("run", "tables.perge"), "Did you mean 'tasks.tables.purge'?"),
        (("run", "ocurrences.retention"), "Did you mean 'tasks.occurrences.retention'?"),
        (("runn", "tables.purge"), "Did you mean 'run'?"),
        ((*RUN, "--limit", "0"), "--limit"),
        ((*RUN, "--dryrun"), "--dry-run"),
        ((*RUN, "--exact"), "--dry-run"),
        (("run",), "TASK"),
        (("history", "--since", "soon"), "--since"),
        (("stop", "no-such-run"), "no run 'no-such-run'"),
    ],
)
def test_wrong_usage_is_exit_64_and_says_what_is_right(
    stack: Installation, words: tuple[str, ...], told: str
) -> None:
    answer = stack.housekeeping(*words)

    assert answer.returncode == 64, answer
    assert told in answer.stderr
    assert answer.stdout == ""
    assert "Traceback" not in answer.stderr


@MODES
def test_a_policy_that_preflight_refuses_is_exit_65_with_the_remedy(
    full: Installation, mode: Mode
) -> None:
    full.rows("ALTER TABLE events RENAME happened_at TO occurred_at")
    try:
        answer = full.housekeeping(*RUN, *mode)
    finally:
        full.rows("ALTER TABLE events RENAME occurred_at TO happened_at")

    assert answer.returncode == 65, answer
    assert "happened_at" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert left(full) == EXPIRED + KEPT


@MODES
def test_a_policy_nobody_described_is_exit_65_with_a_suggestion(
    stack: Installation, mode: Mode
) -> None:
    answer = stack.housekeeping("run", "tables.purge", "--policy", "event", *mode)

    assert answer.returncode == 65, answer
    assert 'did you mean "events"?' in answer.stderr


@MODES
def test_a_store_that_is_away_is_exit_1_and_names_the_setting(
    stack: Installation, mode: Mode
) -> None:
    nowhere = variables(
        broker_url="redis://127.0.0.1:1/0",
        tables__events__database_url="postgresql://u@127.0.0.1:1/x",
    )

    answer = stack.housekeeping(*RUN, *mode, **nowhere)

    assert answer.returncode == 1, answer
    assert ("database_url" if mode else "broker_url") in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("setting", ["result_backend", "redis_url"])
def test_where_no_result_could_be_kept_it_is_said_before_anything_is_sent(
    stack: Installation, setting: str
) -> None:
    nowhere = variables(**{setting: "redis://127.0.0.1:1/0"})
    if setting == "redis_url":  # for the broker and for results too
        taken_away = ("HOUSEKEEPING__BROKER_URL", "HOUSEKEEPING__RESULT_BACKEND")
        stack = copy(stack)
        stack.environment = {k: v for k, v in stack.environment.items() if k not in taken_away}

    answer = stack.housekeeping(*RUN, **nowhere)

    assert answer.returncode == 1, answer
    assert "the result backend redis://127.0.0.1:1/0 can't be reached" in answer.stderr
    assert f"the setting {setting}." in answer.stderr


def test_without_a_worker_the_waiting_user_is_told(full: Installation) -> None:
    lonely = variables(queue="nobody-listens", broker_url=full.valkey.url(9))
    waiting = full.start(["housekeeping", *RUN], "lonely", **lonely)

    waiting.wait_until_it_says("no worker answers", within_seconds=30)

    assert "celery -A tasks worker" in waiting.log()
    assert waiting.running


@MODES
def test_in_a_pipe_everything_is_plain_text(full: Installation, mode: Mode) -> None:
    answer = full.housekeeping(*RUN, *mode, FORCE_COLOR="", TERM="xterm-256color")

    header, row = answer.stdout.splitlines()
    assert "\x1b" not in answer.stdout + answer.stderr
    assert header.split("\t")[:4] == ["operation", "policy", "stopped", "rows"]
    assert row.split("\t")[:4] == ["tables.purge", "events", "exhausted", "2,000"]


@MODES
def test_the_same_answers_under_celery(full: Installation, mode: Mode) -> None:
    under_celery = ("celery", "-A", "tasks", "housekeeping")

    answer = full.run(*under_celery, *RUN, "--limit", "10", "--json", *mode)
    wrong = full.run(*under_celery, "run", "tables.perge")

    assert answer.returncode == 2, answer
    assert parsed(answer)["total_deleted"] == 10
    assert wrong.returncode == 64
    assert "Did you mean 'tasks.tables.purge'?" in wrong.stderr


def test_a_task_can_be_imported_and_delayed(stack: Installation) -> None:
    program = "from tasks.occurrences import retention; print(retention.delay().get(timeout=60))"

    answer = stack.run("python", "-c", program)

    assert answer.returncode == 0, answer.stderr
    assert "'operation': 'occurrences.retention'" in answer.stdout
    assert "'success': True" in answer.stdout
    assert 0 < left(stack, '"JobOccurrences"') < OCCURRENCES
