"""A run that several worker processes share: killed, frozen or late, every row goes exactly once."""

import random
import signal
from collections.abc import Callable
from typing import Any

import pytest

from embedded.valkey import ValkeyServer
from tests.conditions import stays_true, wait_until
from tests.faults.runs.conftest import Install
from tests.faults.runs.events import assert_finished_exactly_once, assert_windows_add_up
from tests.faults.runs.installation import Installation, SuiteProcess
from tests.faults.runs.test_lost_stores import away

SHARED: dict[str, object] = {
    "tables__events__workers": 3,
    "tables__events__split_above_rows": 1000,
    "max_workers_per_database": 3,
}
OVERLAPS = """
SELECT a.number, b.number FROM housekeeping.run_window a JOIN housekeeping.run_window b
    ON a.run_id = b.run_id AND a.number < b.number
WHERE (a.lower::point)[0] < (b.upper::point)[0] AND (b.lower::point)[0] < (a.upper::point)[0]
"""


@pytest.fixture
def shared(install: Install, valkey: ValkeyServer) -> Callable[..., Installation]:
    """Makes an installation whose runs three workers may share."""

    def make(template: str = "slow", **settings: object) -> Installation:
        return install(template, valkey, **{**SHARED, **settings})

    return make


def claimants(installation: Installation) -> int:
    """How many workers have committed a window in a range they hold."""
    if not installation.windows():
        return 0
    (found,) = installation.rows(
        "SELECT count(DISTINCT claimed_by) FROM housekeeping.shard WHERE rows > 0"
    )
    return int(found["count"])


def helpers(workers: list[SuiteProcess]) -> list[SuiteProcess]:
    return [worker for worker in workers if worker.said("housekeeping.shards.work")]


def owner(workers: list[SuiteProcess]) -> SuiteProcess:
    (found,) = [w for w in workers if w.running and w.said("Task tasks.tables.purge")]
    return found


def begin(installation: Installation, count: int = 3) -> tuple[list[SuiteProcess], str]:
    """Start workers and a run that all of them share; return them and the task's id."""
    workers = [installation.worker() for _ in range(count)]
    task_id = installation.send()
    wait_until(lambda: claimants(installation) == count, 20, otherwise=installation.told)
    return workers, task_id


def assert_shared_exactly_once(
    installation: Installation, task_id: str, **expected: Any
) -> dict[str, Any]:
    result = assert_finished_exactly_once(installation, task_id, **expected)
    assert installation.rows(OVERLAPS) == [], installation.told()
    assert not installation.rows("SELECT number FROM housekeeping.shard WHERE done_at IS NULL")
    return result


def test_three_workers_share_a_run_through_the_queue(shared: Callable[..., Installation]) -> None:
    installation = shared()
    _, task_id = begin(installation)

    result = assert_shared_exactly_once(installation, task_id)

    assert result["workers"] == 3


def test_a_lone_worker_is_not_kept_waiting_by_the_help_it_asked_for(
    shared: Callable[..., Installation],
) -> None:
    installation = shared()
    worker = installation.worker()
    task_id = installation.send()

    result = assert_shared_exactly_once(installation, task_id)

    assert "workers" not in result
    late = "the run has ended"
    wait_until(lambda: worker.log().count(late) == 2, 20, otherwise=installation.told)


@pytest.mark.parametrize("killed", [1, 2])
def test_killed_helpers_ranges_are_taken_over_and_every_row_goes_once(
    shared: Callable[..., Installation], killed: int
) -> None:
    installation = shared()
    workers, task_id = begin(installation)

    for helper in helpers(workers)[:killed]:
        helper.kill()

    assert_shared_exactly_once(installation, task_id)
    assert owner(workers).running


def test_a_killed_helper_s_child_is_replaced_and_every_row_goes_once(
    shared: Callable[..., Installation],
) -> None:
    installation = shared()
    workers, task_id = begin(installation)

    for child in helpers(workers)[0].children():
        child.kill()

    assert_shared_exactly_once(installation, task_id)


def test_a_killed_owners_run_goes_on_with_its_helpers_and_ends_once(
    shared: Callable[..., Installation],
) -> None:
    installation = shared()
    workers, task_id = begin(installation)

    owner(workers).kill()

    assert_shared_exactly_once(installation, task_id, at_least_attempts=2)


def test_everybody_is_killed_and_one_new_worker_ends_the_run(
    shared: Callable[..., Installation],
) -> None:
    installation = shared()
    workers, task_id = begin(installation)

    for worker in workers:
        worker.kill()
    installation.worker()

    assert_shared_exactly_once(installation, task_id, at_least_attempts=2)


def test_a_frozen_helper_that_wakes_up_commits_nothing_in_a_range_it_lost(
    shared: Callable[..., Installation],
) -> None:
    installation = shared("resting", tables__events__duty=0.2)
    workers, task_id = begin(installation)
    frozen = helpers(workers)[0]
    children = frozen.children()

    for child in children:
        child.suspend()
    # Its lease lapses, and somebody takes its range over once no other is left.
    wait_until(lambda: taken_over(installation), 60, otherwise=installation.told)
    for child in children:
        child.resume()

    assert_shared_exactly_once(installation, task_id)


def taken_over(installation: Installation) -> bool:
    return bool(installation.rows("SELECT number FROM housekeeping.shard WHERE claim > 1"))


def test_a_helper_asked_to_leave_hands_its_range_on(shared: Callable[..., Installation]) -> None:
    installation = shared("resting", tables__events__duty=0.2)
    workers, task_id = begin(installation)
    leaving = helpers(workers)[0]

    leaving.send(signal.SIGQUIT)

    assert leaving.wait(within_seconds=40) is not None
    assert_shared_exactly_once(installation, task_id)


def test_redis_away_for_longer_than_the_leases_costs_a_retry_and_no_row(
    shared: Callable[..., Installation], valkey: ValkeyServer
) -> None:
    installation = shared("resting", tables__events__duty=0.1)
    _, task_id = begin(installation)

    away(valkey, 5.0)

    assert_shared_exactly_once(installation, task_id, at_least_attempts=2)


def test_stopping_the_run_stops_every_worker_on_it(shared: Callable[..., Installation]) -> None:
    installation = shared("resting", tables__events__duty=0.1)
    workers, task_id = begin(installation)

    stopped = installation.housekeeping("stop", task_id)

    assert stopped.returncode == 0, stopped.stderr
    answer = installation.outcome(task_id)
    assert answer.result["stop_reason"] == "stopped"
    before = len(installation.windows())
    for helper in helpers(workers):
        wait_until(lambda h=helper: h.said("succeeded"), 10, otherwise=installation.told)  # type: ignore[misc]
    assert len(installation.windows()) == before
    assert_windows_add_up(installation)


@pytest.mark.timeout(180)
def test_six_kills_at_random_moments_of_one_shared_run(
    shared: Callable[..., Installation],
) -> None:
    seed = random.SystemRandom().randrange(1_000_000)
    print(f"random.Random({seed})")  # noqa: T201 - pytest shows it for a failed test
    moments = random.Random(seed)
    installation = shared(
        "resting", visibility_timeout="2s", lease_ttl="1s", tables__events__duty=0.1
    )
    workers, task_id = begin(installation)

    for _ in range(6):
        stays_true(lambda: True, moments.uniform(0, 1.0))  # the moment is the fault
        living = [worker for worker in workers if worker.running]
        moments.choice(living).kill()
        workers.append(installation.worker())

    assert_shared_exactly_once(installation, task_id)
