"""A message is handed out again while its run goes on: nothing is run, said or counted twice."""

from embedded.valkey import ValkeyServer
from tests.conditions import wait_until
from tests.faults.runs.conftest import Install
from tests.faults.runs.events import assert_finished_exactly_once

DELIVERIES = 4


def test_messages_that_come_back_during_their_run_are_put_off_until_it_has_ended(
    install: Install, valkey: ValkeyServer
) -> None:
    installation = install("resting", valkey, lease_ttl="1s")
    worker = installation.worker("--concurrency=3")
    task_id = installation.send()
    installation.wait_for_windows(3)

    for _ in range(DELIVERIES):
        installation.send(task_id=task_id)
    wait_until(lambda: worker.said("looking again in 1 s"), 15, otherwise=installation.told)
    seen = set()

    def ended() -> bool:
        seen.add(installation.client.AsyncResult(task_id).state)
        return installation.runs()[0]["ended_at"] is not None

    wait_until(ended, 60, otherwise=installation.told)

    # No retry was used up and no result of a second delivery was told for the run's own.
    assert seen <= {"STARTED", "PROGRESS", "SUCCESS"}
    assert "locked" not in worker.log()
    assert_finished_exactly_once(installation, task_id)
    wait_until(lambda: worker.log().count("succeeded in") >= 2, 20, otherwise=installation.told)
    assert_finished_exactly_once(installation, task_id)
