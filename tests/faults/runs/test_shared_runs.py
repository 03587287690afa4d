"""A run that several worker processes share: killed, frozen or late, every row goes exactly once."""

import random
import signal
from collections.abc import Callable

import pytest

from embedded.valkey import ValkeyServer
from tests.conditions import stays_true, wait_until
from tests.faults.runs.conftest import Install
from tests.faults.runs.events import assert_windows_add_up
from tests.faults.runs.installation import Installation
from tests.faults.runs.sharing import SHARED, assert_shared_exactly_once, begin, helpers, owner
from tests.faults.runs.test_lost_stores import away


@pytest.fixture
def shared(install: Install, valkey: ValkeyServer) -> Callable[..., Installation]:
    """Makes an installation whose runs three workers may share."""

    def make(template: str = "slow", **settings: object) -> Installation:
        return install(template, valkey, **{**SHARED, **settings})

    return make


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
    shared: Callable[..., Installation], moments: random.Random
) -> None:
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
