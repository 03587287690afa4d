"""`housekeeping run database.maintain` as its users run it."""

import json

import pytest

from tests.faults.runs.installation import Installation

TABLE = "public.JobOccurrences"
ALWAYS = {
    "HOUSEKEEPING__MILVAION__MAINTENANCE__VACUUM": "always",
    "HOUSEKEEPING__MILVAION__MAINTENANCE__REINDEX": "always",
    "HOUSEKEEPING__MILVAION__MAINTENANCE__TABLES": '["JobOccurrences", ["public", "ScheduledJobs"]]',
}
MODES = pytest.mark.parametrize("mode", [(), ("--inline",)], ids=["queue", "inline"])


@MODES
def test_maintenance_tells_of_every_table(stack: Installation, mode: tuple[str, ...]) -> None:
    answer = stack.housekeeping("run", "database.maintain", "--json", *mode)

    assert answer.returncode == 0, answer.stderr
    shape = json.loads(answer.stdout)
    assert (shape["success"], shape["stop_reason"]) == (True, "exhausted")
    assert "total_cleaned" in shape
    entry = next(each for each in shape["tables"] if each["table"] == TABLE)
    assert entry.get("note") or entry["actions"]


def test_what_was_done_is_shown_with_its_figures_and_why(stack: Installation) -> None:
    answer = stack.housekeeping("run", "database.maintain", "--inline", **ALWAYS)

    assert answer.returncode == 0, answer.stderr
    line = next(line for line in answer.stdout.splitlines() if line.startswith(TABLE))
    table, done, figures, why = line.split("\t")
    assert (table, done.split(", ")[:2]) == (TABLE, ["vacuum", "analyze"])
    assert "dead_rows " in figures
    assert " to " in figures
    assert "vacuum done: always; analyze done: after VACUUM; reindex done:" in why
    assert "%" in answer.stderr  # progress


def test_a_dry_run_shows_what_it_would_do(stack: Installation) -> None:
    answer = stack.housekeeping("run", "database.maintain", "--inline", "--dry-run", **ALWAYS)

    assert answer.returncode == 0, answer.stderr
    assert "would do " in answer.stdout
    assert "vacuum planned: always" in answer.stdout


def test_check_tells_what_is_needed(stack: Installation) -> None:
    answer = stack.housekeeping("check", **ALWAYS)

    assert answer.returncode == 0, answer.stdout
    assert "database.maintain milvaion\t2 tables; needed now: vacuum public." in answer.stdout


@pytest.mark.parametrize("words", [("--dry-run", "--exact"), ("--yes",)], ids=["exact", "yes"])
def test_what_would_change_nothing_is_refused(stack: Installation, words: tuple[str, ...]) -> None:
    answer = stack.housekeeping("run", "database.maintain", "--inline", *words)

    assert answer.returncode == 64
    assert f"{words[-1]} " in answer.stderr
    assert "tasks.database.maintain takes none: leave it out" in answer.stderr
