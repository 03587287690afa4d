"""The operator's flags on a real Valkey."""

import pytest
from redis import Redis

from embedded.valkey import ValkeyServer
from housekeeping.policies.result import StopReason
from housekeeping.stores.redis.connection import connect
from housekeeping.stores.redis.control import Control

TASK = "tasks.tables.purge"


def test_nobody_objects_to_a_run_by_default(redis: Redis) -> None:
    assert Control(redis).objection(TASK, "run") is None


@pytest.mark.parametrize(("paused", "names"), [(TASK, {TASK}), (None, {"*"})])
def test_a_paused_task_objects_until_it_is_resumed(
    redis: Redis, paused: str | None, names: set[str]
) -> None:
    control = Control(redis)

    control.pause(paused)

    assert control.objection(TASK, "run") is StopReason.PAUSED
    assert control.paused() == names
    assert control.resume(paused)
    assert control.objection(TASK, "run") is None
    assert not control.resume(paused)


def test_a_pause_of_one_task_leaves_the_others_alone(redis: Redis) -> None:
    Control(redis).pause("tasks.other")

    assert Control(redis).objection(TASK, "run") is None


def test_resuming_all_lifts_every_pause(redis: Redis) -> None:
    control = Control(redis)
    control.pause(TASK)
    control.pause()

    assert control.resume()
    assert control.paused() == set()


def test_resuming_one_task_does_not_lift_the_pause_of_all(redis: Redis) -> None:
    control = Control(redis)
    control.pause()

    assert not control.resume(TASK)
    assert control.objection(TASK, "run") is StopReason.PAUSED


def test_a_stop_means_one_run_and_is_forgotten_after_a_day(redis: Redis) -> None:
    control = Control(redis)

    control.stop("run")

    assert control.objection(TASK, "run") is StopReason.STOPPED
    assert control.objection(TASK, "another") is None
    (key,) = redis.keys("housekeeping:stop:*")
    assert 86_000 < redis.ttl(key) <= 86_400


def test_a_stop_counts_before_a_pause(redis: Redis) -> None:
    control = Control(redis)
    control.pause()
    control.stop("run")

    assert control.objection(TASK, "run") is StopReason.STOPPED


def test_a_redis_that_is_away_is_no_objection() -> None:
    with ValkeyServer() as server:
        client = connect(server.url())
        control = Control(client)
        control.pause()
        server.stop()

        assert control.objection(TASK, "run") is None
