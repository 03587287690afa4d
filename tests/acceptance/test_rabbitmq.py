"""The suite with RabbitMQ as its broker: the commands, the schedule, two workers, `check`."""

import json
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded.postgresql import PostgresServer
from embedded.rabbitmq import RabbitServer
from embedded.valkey import ValkeyServer
from tests import rabbit as rabbitmq
from tests.acceptance import whole_stack
from tests.acceptance.whole_stack import EXPIRED, KEPT, SLOW_EXPIRED, left
from tests.conditions import wait_until
from tests.faults.runs.installation import Installation, variables

pytestmark = rabbitmq.needed

ROOT = Path(__file__).parents[2]
RUN = ("run", "tables.purge", "--policy")
GIVEN_UP_WITHIN_SECONDS = 8  # 3 s, and a process that starts


@pytest.fixture(scope="module")
def stack(
    postgres: PostgresServer,
    rabbit_server: RabbitServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Installation]:
    """The whole stack with RabbitMQ between client, beat and two workers."""
    folder = tmp_path_factory.mktemp("rabbit")
    name = f"stack_{folder.name}"
    database = postgres.create_database(name)
    whole_stack.make_tables(database)
    settings = {**whole_stack.SETTINGS, "broker_url": rabbit_server.url()}
    with ValkeyServer(append_only=True) as valkey:
        installation = Installation(database, valkey, folder, **settings)
        try:
            installation.worker()
            installation.worker()
            yield installation
        finally:
            installation.end()
    postgres.drop_database(name)


def test_a_run_goes_through_the_queue_and_its_result_and_progress_come_back(
    full: Installation,
) -> None:
    answer = full.housekeeping(*RUN, "slow", "--limit", "900")
    shape = json.loads(full.housekeeping(*RUN, "events", "--json").stdout)

    assert answer.returncode == 2, answer
    assert " %  slow: " in answer.stderr
    assert (shape["success"], shape["stop_reason"]) == (True, "exhausted")
    assert shape["total_deleted"] == EXPIRED
    assert left(full) == KEPT


def test_delay_runs_a_task_and_its_result_is_read_from_redis(full: Installation) -> None:
    told = full.run(
        "python",
        "-c",
        "from tasks.tables import purge\n"
        "print(purge.delay(policy='events').get(timeout=30)['total_deleted'])",
        PYTHONPATH=str(ROOT),
    )

    assert told.stdout.strip() == str(EXPIRED), told
    assert left(full) == KEPT


def test_a_run_can_be_paused_and_stopped(full: Installation, rabbit_server: RabbitServer) -> None:
    for words, reason in ((("pause", "tables.purge"), "paused"), (("stop",), "stopped")):
        before = len(full.windows())
        task_id = full.send(kwargs={"policy": "slow"})
        full.wait_for_windows(before + 2)

        told = full.housekeeping(*words, *([task_id] if words == ("stop",) else []))

        assert told.returncode == 0, told
        assert full.outcome(task_id, within_seconds=10).result["stop_reason"] == reason
        full.housekeeping("resume")
    assert 0 < left(full, "slow_events") < SLOW_EXPIRED + KEPT
    wait_until(lambda: rabbitmq.waiting(rabbit_server) == 0, 5)


def test_check_says_which_rabbitmq_answers_and_that_3_10_is_impatient(stack: Installation) -> None:
    answer = stack.housekeeping("check", "--json")

    assert answer.returncode == 0, answer
    (finding,) = [f for f in json.loads(answer.stdout)["findings"] if f["subject"] == "broker_url"]
    assert "RabbitMQ 3." in finding["message"]
    if "RabbitMQ 3.10" in finding["message"]:
        # Maintenance may take two hours, 5 minutes to wind up, 1 until it is killed.
        assert finding["level"] == "warning"
        assert f"consumer_timeout = {(126 + 15) * 60_000} " in finding["message"]


def test_check_names_a_rabbitmq_that_is_away_without_its_password(stack: Installation) -> None:
    away = variables(broker_url="amqp://guest:s3cret@127.0.0.1:1//")

    answer = stack.housekeeping("check", "--json", **away)

    assert answer.returncode == 65, answer
    errors = [f for f in json.loads(answer.stdout)["findings"] if f["level"] == "error"]
    assert [finding["subject"] for finding in errors] == ["broker_url"]
    assert "amqp://guest:***@127.0.0.1:1// does not answer: " in errors[0]["message"]
    assert "s3cret" not in answer.stdout + answer.stderr


@pytest.mark.parametrize("path", ["/", "nowhere"])
def test_check_and_run_say_that_rabbitmq_refuses_us(
    stack: Installation,
    rabbit_server: RabbitServer,
    path: str,
) -> None:
    password = "wrong" if path == "/" else "guest"
    wrong = variables(broker_url=f"amqp://guest:{password}@127.0.0.1:{rabbit_server.port}/{path}")

    checked = stack.housekeeping("check", "--json", **wrong)
    ran = stack.housekeeping(*RUN, "events", **wrong)

    errors = [f for f in json.loads(checked.stdout)["findings"] if f["level"] == "error"]
    assert "refuses us: " in errors[0]["message"]
    assert ran.returncode == 1, ran
    assert "broker_url" in ran.stderr
    assert "Traceback" not in checked.stderr + ran.stderr


def test_check_gives_a_rabbitmq_that_says_nothing_up_after_seconds(stack: Installation) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"amqp://127.0.0.1:{silent.getsockname()[1]}//"
        begun = time.monotonic()
        answer = stack.housekeeping("check", "--json", **variables(broker_url=url))
        took = time.monotonic() - begun

    assert answer.returncode == 65, answer
    assert "does not answer" in answer.stdout
    assert took < GIVEN_UP_WITHIN_SECONDS


def test_beat_fires_every_entry_through_rabbitmq_and_outlives_its_restart(
    full: Installation,
    rabbit_server: RabbitServer,
) -> None:
    beat = full.start(
        ["celery", "-A", "tests.acceptance.every_second", "beat", "-l", "info"],
        "beat",
        PYTHONPATH=str(ROOT),
    )

    def fired() -> bool:
        return {"tables.purge", "occurrences.retention", "dead_letters.cleanup"} <= {
            run["operation"] for run in full.runs()[before:]
        }

    before = len(full.runs())
    wait_until(fired, 30, otherwise=full.told)
    rabbit_server.kill()
    wait_until(lambda: beat.said("trying on") or beat.said("Couldn't apply"), 20, beat.log)
    rabbit_server.start()

    before = len(full.runs())
    wait_until(fired, 40, otherwise=full.told)
    assert beat.running
    beat.send(signal.SIGTERM)
    assert beat.wait(within_seconds=15) == 0, beat.log()
