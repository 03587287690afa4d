"""`pause`, `resume` and `stop` on a run that is going, and what can be seen of it meanwhile."""

import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tasks.progress import reported
from tests.acceptance.whole_stack import EXPIRED, KEPT, SLOW_EXPIRED, left
from tests.conditions import wait_until
from tests.faults.runs.installation import Installation

SLOW = {"policy": "slow"}


@pytest.fixture(autouse=True)
def nothing_paused(stack: Installation) -> Iterator[None]:
    yield
    stack.housekeeping("resume")


def windows_of(stack: Installation, task_id: str) -> list[dict[str, Any]]:
    return stack.rows(
        "SELECT w.* FROM housekeeping.run_window w JOIN housekeeping.run r ON r.id = w.run_id"
        " WHERE r.task_id = %s",
        task_id,
    )


def begin(stack: Installation) -> str:
    """Send a slow run and wait until it has begun to delete; return its task's id."""
    stack.housekeeping("check", "--init")
    task_id = stack.send(kwargs=SLOW)
    wait_until(lambda: len(windows_of(stack, task_id)) >= 2, 20, otherwise=stack.told)
    return task_id


def assert_left_within_one_window(stack: Installation, task_id: str, before: int) -> dict[str, Any]:
    """The run has ended by itself; at most the window that was under way was added."""
    answer = stack.outcome(task_id, within_seconds=10)
    assert answer.state == "SUCCESS", answer.result
    result: dict[str, Any] = answer.result
    assert len(windows_of(stack, task_id)) <= before + 1
    assert result["success"] is False
    assert result["total_deleted"] == SLOW_EXPIRED + KEPT - left(stack, "slow_events")
    assert 0 < result["total_deleted"] < SLOW_EXPIRED
    return result


@pytest.mark.parametrize("named", ["run", "beginning", "task"])
def test_a_run_leaves_within_one_window_when_it_is_stopped(full: Installation, named: str) -> None:
    task_id = begin(full)
    (run,) = full.rows("SELECT id FROM housekeeping.run WHERE task_id = %s", task_id)
    run_id = str(run["id"])

    told = full.housekeeping(
        "stop", {"run": run_id, "beginning": run_id[:13], "task": task_id}[named]
    )
    before = len(windows_of(full, task_id))

    assert (told.returncode, run_id in told.stdout) == (0, True), told
    result = assert_left_within_one_window(full, task_id, before)
    assert result["stop_reason"] == "stopped"


@pytest.mark.parametrize("words", [("tables.purge",), ()], ids=["the task", "every task"])
def test_a_pause_ends_the_run_and_starts_none_until_it_is_lifted(
    full: Installation, words: tuple[str, ...]
) -> None:
    task_id = begin(full)

    told = full.housekeeping("pause", *words)
    before = len(windows_of(full, task_id))

    assert told.returncode == 0, told
    assert assert_left_within_one_window(full, task_id, before)["stop_reason"] == "paused"
    asked = full.housekeeping("run", "tables.purge", "--policy", "events", "--json")
    assert (asked.returncode, json.loads(asked.stdout)["stop_reason"]) == (2, "paused")
    assert left(full) == EXPIRED + KEPT
    assert full.housekeeping("resume", *words).returncode == 0
    assert full.housekeeping("run", "tables.purge", "--policy", "events").returncode == 0
    assert left(full) == KEPT


def test_a_pause_of_one_task_leaves_the_others_alone(full: Installation) -> None:
    full.housekeeping("pause", "tables.purge")

    other = full.housekeeping("run", "dead_letters.cleanup", "--json")

    assert other.returncode == 0, other.stderr
    assert json.loads(other.stdout)["stop_reason"] == "exhausted"


def test_a_resume_says_when_nothing_was_paused_or_all_still_is(stack: Installation) -> None:
    assert "was not paused" in stack.housekeeping("resume", "tables.purge").stdout
    stack.housekeeping("pause", "tables.purge")
    stack.housekeeping("pause")
    told = stack.housekeeping("resume", "tables.purge")
    assert "every task is still paused" in told.stdout + told.stderr


def test_progress_is_visible_while_a_run_goes_on_and_only_grows(full: Installation) -> None:
    answer = full.client.AsyncResult(begin(full))
    seen: list[dict[str, Any]] = []

    def watched() -> bool:
        _, progress = reported(answer)
        if progress is not None and progress not in seen:
            seen.append(progress)
        return len(seen) >= 4 or answer.ready()

    wait_until(watched, 20, otherwise=full.told)
    full.housekeeping("stop", answer.id)
    full.outcome(answer.id)

    assert len(seen) >= 4, "the run was over too soon"
    for info in seen:
        assert {"done", "total", "percent", "message"} <= set(info)
        assert 0 <= info["percent"] < 100
        assert info["done"] <= info["total"]
        assert "slow" in info["message"]
    done = [info["done"] for info in seen]
    assert done == sorted(done)
    assert done[-1] > done[0]


def test_progress_lines_go_to_stderr_and_the_result_to_stdout(full: Installation) -> None:
    answer = full.housekeeping("run", "tables.purge", "--policy", "slow", "--limit", "900")

    assert answer.returncode == 2, answer
    lines = answer.stderr.splitlines()
    assert all(" %  slow: " in line for line in lines if not line.startswith("warning: ")), lines
    assert " %  slow: " in answer.stderr
    assert " %  slow: " not in answer.stdout
    assert "row_budget" in answer.stdout


def test_ctrl_c_ends_an_inline_run_in_good_order(full: Installation) -> None:
    begun = len(full.runs())
    inline = full.start(
        ["housekeeping", "run", "tables.purge", "--policy", "slow", "--inline"], "interrupted"
    )
    wait_until(lambda: left(full, "slow_events") < SLOW_EXPIRED + KEPT, 20, otherwise=full.told)

    inline.send(signal.SIGINT)

    assert inline.wait(within_seconds=5) == 2, inline.log()
    run = full.runs()[begun]
    assert (run["stop_reason"], run["success"]) == ("stopped", False)
    assert run["total"] == SLOW_EXPIRED + KEPT - left(full, "slow_events")
    assert "Traceback" not in inline.log()


def test_ctrl_c_while_watching_leaves_the_run_going_and_says_how_to_stop_it(
    full: Installation,
) -> None:
    begun = len(full.runs())
    watching = full.start(["housekeeping", "run", "tables.purge", "--policy", "slow"], "watching")
    wait_until(lambda: len(full.runs()) > begun, 20, otherwise=full.told)
    task_id = full.runs()[begun]["task_id"]

    watching.send(signal.SIGINT)

    assert watching.wait(within_seconds=5) == 1
    assert f"housekeeping stop {task_id}" in watching.log()
    assert "Traceback" not in watching.log()
    before = len(windows_of(full, task_id))
    wait_until(lambda: len(windows_of(full, task_id)) > before, 10, otherwise=full.told)
    assert full.housekeeping("stop", task_id).returncode == 0
    assert full.outcome(task_id).result["stop_reason"] == "stopped"
