"""Kills at moments nobody chose: whatever they hit, the account is right in the end."""

import random

import pytest

from embedded.valkey import ValkeyServer
from tests.conditions import stays_true, wait_until
from tests.faults.runs.conftest import Install
from tests.faults.runs.events import (
    EXPIRED,
    assert_finished_exactly_once,
    assert_windows_add_up,
    meant_to_survive,
    survivors,
)
from tests.faults.runs.installation import Installation, SuiteProcess

KILLS = 10


@pytest.mark.timeout(180)
def test_ten_workers_killed_at_random_moments_of_one_run(
    install: Install, valkey: ValkeyServer, moments: random.Random
) -> None:
    # At least 6 s of work: some of it is left after the tenth kill.
    installation = install(
        "resting", valkey, visibility_timeout="2s", lease_ttl="1s", tables__events__duty=0.1
    )
    workers = [installation.worker(), installation.worker()]
    task_id = installation.send()

    for kill in range(KILLS):
        holder = wait_for_holder(installation, workers, task_id, attempts=kill + 1)
        stays_true(lambda: True, moments.uniform(0, 0.6))
        holder.kill()
        workers.append(installation.worker())

    assert_finished_exactly_once(installation, task_id, at_least_attempts=KILLS // 2)


def wait_for_holder(
    installation: Installation, workers: list[SuiteProcess], task_id: str, attempts: int
) -> SuiteProcess:
    """Wait until a living worker has received the task so many deliveries after its first."""

    def holder() -> SuiteProcess | None:
        told = f"[{task_id}] received"
        if sum(worker.log().count(told) for worker in workers) < attempts:
            return None
        return next((each for each in workers if each.running and each.said(told)), None)

    found = wait_until(holder, 20, otherwise=installation.told)
    assert found is not None
    return found


@pytest.mark.timeout(180)
def test_ten_inline_runs_killed_at_random_moments_add_up(
    install: Install, valkey: ValkeyServer, moments: random.Random
) -> None:
    installation = install("slow", valkey, lease_ttl="1s", tables__events__batch_target="20ms")
    command = ["housekeeping", "run", "tables.purge", "--inline"]

    for kill in range(KILLS):
        inline = installation.start(command, f"inline{kill}")
        wait_until_it_runs(installation, inline, kill)
        stays_true(lambda: True, moments.uniform(0, 0.2))
        inline.kill()
        wait_until(lambda: not leases(installation), 5, otherwise=installation.told)
    last = installation.housekeeping("run", "tables.purge", "--inline")

    assert last.returncode == 0, last.stderr
    assert survivors(installation) == meant_to_survive()
    assert_windows_add_up(installation)
    runs = installation.runs()
    assert all(run["ended_at"] is not None for run in runs)
    assert sum(run["total"] for run in runs) == EXPIRED
    assert [run["success"] for run in runs] == [False] * KILLS + [True]


def wait_until_it_runs(installation: Installation, inline: SuiteProcess, before: int) -> None:
    """Wait until this run has its ledger row: it plans, deletes or commits from here on."""

    def begun() -> bool:
        assert inline.running, installation.told()
        return len(installation.runs()) > before

    wait_until(begun, 20, otherwise=installation.told)


def leases(installation: Installation) -> list[bytes]:
    import redis

    with redis.Redis.from_url(installation.valkey.url(2)) as client:
        return list(client.scan_iter("{housekeeping:lease:*"))
