"""Valkey or PostgreSQL goes away in the middle of a run: the run goes on, and counts once."""

from collections.abc import Callable

import pytest

from embedded.postgresql import PostgresServer
from embedded.valkey import ValkeyServer
from tests.conditions import stays_true
from tests.faults.runs.conftest import Install
from tests.faults.runs.events import assert_finished_exactly_once
from tests.faults.runs.installation import Installation

AWAY_SECONDS = 1.5  # within the lease's two seconds
LONG_AWAY_SECONDS = 5.0  # longer than the lease and the visibility timeout


def away(server: ValkeyServer | PostgresServer, seconds: float) -> None:
    """Kill a server and start it again after a while."""
    server.kill()
    stays_true(lambda: True, seconds)  # the time is the fault: there is nothing to poll
    server.start()


@pytest.fixture(params=["kept", "forgotten"])
def either_valkey(
    request: pytest.FixtureRequest, valkey: ValkeyServer, forgetful_valkey: ValkeyServer
) -> ValkeyServer:
    """One that comes back with its data, and one that comes back empty."""
    return valkey if request.param == "kept" else forgetful_valkey


def test_valkey_killed_and_back_within_the_lease_disturbs_no_run(
    install: Install, either_valkey: ValkeyServer
) -> None:
    installation = install("slow", either_valkey)
    worker = installation.worker()
    task_id = installation.send()
    installation.wait_for_windows(3)

    away(either_valkey, AWAY_SECONDS)

    assert_finished_exactly_once(installation, task_id)
    assert worker.running


def test_a_run_that_outlives_an_outage_longer_than_its_lease_ends_once(
    install: Install, either_valkey: ValkeyServer
) -> None:
    installation = install("resting", either_valkey, tables__events__duty=0.15)
    worker = installation.worker()
    task_id = installation.send()
    installation.wait_for_windows(3)

    away(either_valkey, LONG_AWAY_SECONDS)

    assert_finished_exactly_once(installation, task_id, at_least_attempts=2)
    assert worker.running


@pytest.mark.parametrize("template", ["indexed", "slow"])
def test_a_terminated_backend_costs_a_retry_and_the_run_ends_once(
    install: Install, valkey: ValkeyServer, template: str
) -> None:
    installation = install(template, valkey)
    installation.worker()
    task_id = installation.send()
    installation.wait_for_windows(3)

    ended = installation.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name LIKE 'hk:tables.purge:%'"
    )

    assert len(ended) == 1
    assert_finished_exactly_once(installation, task_id, at_least_attempts=2)


def killed(postgres: PostgresServer) -> None:
    postgres.kill()
    postgres.start()


def long_away(postgres: PostgresServer) -> None:
    away(postgres, 3)


@pytest.mark.parametrize("disturb", [killed, long_away])
def test_a_killed_postgresql_costs_retries_and_the_run_ends_once(
    install: Install,
    postgres: PostgresServer,
    valkey: ValkeyServer,
    disturb: Callable[[PostgresServer], None],
) -> None:
    installation = install("slow", valkey)
    installation.worker()
    task_id = installation.send()
    installation.wait_for_windows(3)

    disturb(postgres)

    assert_finished_exactly_once(installation, task_id, at_least_attempts=2)


def test_a_second_run_sent_meanwhile_is_skipped_and_says_so(
    install: Install, valkey: ValkeyServer
) -> None:
    installation: Installation = install("resting", valkey)
    installation.worker("--concurrency=2")
    task_id = installation.send()
    installation.wait_for_windows(2)

    skipped = installation.outcome(installation.send()).result

    assert (skipped["stop_reason"], skipped["success"]) == ("locked", False)
    assert skipped["total_deleted"] == 0
    done = installation.outcome(task_id).result
    assert done["success"]
    assert [run["stop_reason"] for run in installation.runs()] == ["exhausted", "locked"]
