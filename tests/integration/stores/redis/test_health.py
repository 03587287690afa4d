"""One run measures, the others read; without Redis everybody measures."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis import Redis

from embedded.valkey import ValkeyServer
from housekeeping.stores.redis.connection import connect
from housekeeping.stores.redis.health import SharedSample
from tests.conditions import wait_until

KEY = "housekeeping:health:db"


class Measured:
    """Counts how often it was asked to measure."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> dict[str, Any]:
        self.times += 1
        return {"number": self.times}


def test_a_fresh_sample_is_not_measured_again(redis: Redis) -> None:
    measured = Measured()
    ours, theirs = SharedSample(redis, "db"), SharedSample(redis, "db")

    assert ours.take(1.0, measured) == theirs.take(1.0, measured) == {"number": 1}
    assert redis.get(KEY) is not None
    assert redis.exists(f"{KEY}:sampling") == 0


def test_a_sample_too_old_is_measured_again(redis: Redis) -> None:
    measured = Measured()
    shared = SharedSample(redis, "db")
    shared.take(1.0, measured)

    assert shared.take(0.0, measured) == {"number": 2}


def test_samples_are_forgotten_within_two_seconds(redis: Redis) -> None:
    SharedSample(redis, "db").take(1.0, Measured())

    assert 0 < redis.pttl(KEY) <= 2000


def test_another_database_has_its_own(redis: Redis) -> None:
    measured = Measured()
    SharedSample(redis, "db").take(1.0, measured)

    assert SharedSample(redis, "other").take(1.0, measured) == {"number": 2}


def test_of_two_that_ask_at_once_one_measures_and_both_have_its_answer(redis: Redis) -> None:
    measured, go_on = Measured(), threading.Event()

    def slowly() -> dict[str, Any]:
        assert go_on.wait(10)
        return measured()

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(SharedSample(redis, "db").take, 1.0, slowly)
        wait_until(lambda: redis.exists(f"{KEY}:sampling") == 1, 5)
        second = threads.submit(SharedSample(redis, "db").take, 1.0, measured)
        go_on.set()

        assert first.result(10) == second.result(10) == {"number": 1}


def test_whoever_measures_and_is_lost_keeps_nobody_waiting(redis: Redis) -> None:
    redis.set(f"{KEY}:sampling", "1", px=60_000)

    assert SharedSample(redis, "db").take(1.0, Measured()) == {"number": 1}


def test_a_measurement_that_fails_lets_the_next_one_measure(redis: Redis) -> None:
    def fails() -> dict[str, Any]:
        raise RuntimeError("the connection is gone")

    with pytest.raises(RuntimeError):
        SharedSample(redis, "db").take(1.0, fails)

    assert SharedSample(redis, "db").take(1.0, Measured()) == {"number": 1}


@pytest.mark.parametrize("rubbish", ["", "{", "[]", "null", "5"])
def test_what_is_no_sample_is_measured_anew(redis: Redis, rubbish: str) -> None:
    redis.set(KEY, rubbish, px=2000)

    assert SharedSample(redis, "db").take(1.0, Measured()) == {"number": 1}


def test_without_redis_everybody_measures_and_asks_redis_again_later() -> None:
    now, measured = [0.0], Measured()
    with ValkeyServer() as server:
        client = connect(server.url())
        shared = SharedSample(client, "db", lambda: now[0])
        shared.take(1.0, measured)
        server.kill()

        assert shared.take(1.0, measured) == {"number": 2}
        assert shared.take(1.0, measured) == {"number": 3}
        server.start()
        now[0] = 31.0
        assert shared.take(0.5, measured) == {"number": 4}
        assert shared.take(0.5, measured) == {"number": 4}
        client.close()
