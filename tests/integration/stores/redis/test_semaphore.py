"""Places on a database: no more holders than places, and a dead holder's place falls free."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis

from embedded.valkey import ValkeyServer
from housekeeping.policies.errors import StoreUnreachable
from housekeeping.stores.redis.connection import connect
from housekeeping.stores.redis.semaphore import Place
from tests.conditions import stays_true, wait_until

DATABASE = "db:5432/shop"
KEY = f"{{housekeeping:working:{DATABASE}}}"
HOLD = """
import sys, time
from housekeeping.stores.redis.connection import connect
from housekeeping.stores.redis.semaphore import Place
place = Place(connect(sys.argv[1]), sys.argv[2], "killed", most=1, seconds=0.6)
print(place.take(), flush=True)
time.sleep(60)
"""

MakePlace = Callable[..., Place]


@pytest.fixture
def place(redis: Redis) -> Iterator[MakePlace]:
    """Makes places, and gives all of them back when the test ends."""
    made: list[Place] = []

    def make(token: str, most: int = 2, seconds: float = 30.0, client: Redis = redis) -> Place:
        made.append(Place(client, DATABASE, token, most=most, seconds=seconds))
        return made[-1]

    yield make
    for each in made:
        each.give_back()


def test_there_are_as_many_places_as_the_setting_says(place: MakePlace) -> None:
    first, second, third = place("first"), place("second"), place("third")

    assert (first.take(), second.take(), third.take()) == (True, True, False)
    assert first.take()  # its own place is not taken twice

    second.give_back()
    assert third.take()


def test_databases_do_not_share_places(redis: Redis, place: MakePlace) -> None:
    assert place("first", most=1).take()

    with Place(redis, "db:5432/other", "second", most=1, seconds=30) as elsewhere:
        assert elsewhere.take()


def test_of_many_who_ask_at_once_only_so_many_get_a_place(
    valkey: ValkeyServer, place: MakePlace
) -> None:
    asking = [place(str(number), most=3, client=connect(valkey.url())) for number in range(16)]
    start = threading.Barrier(16)

    def ask(one: Place) -> bool:
        start.wait()
        return one.take()

    with ThreadPoolExecutor(16) as threads:
        got = list(threads.map(ask, asking))

    assert got.count(True) == 3


def test_a_place_is_kept_for_as_long_as_its_holder_lives(place: MakePlace) -> None:
    assert place("living", most=1, seconds=0.4).take()

    other = place("other", most=1)
    assert stays_true(lambda: not other.take(), 1.2)


def test_a_killed_holders_place_falls_free(valkey: ValkeyServer, place: MakePlace) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, valkey.url(), DATABASE], stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        other = place("other", most=1)
        assert stays_true(lambda: not other.take(), 1.0)

        holder.kill()

        wait_until(other.take, 3)


def test_a_place_lost_with_redis_s_memory_is_taken_again_if_it_is_still_free(
    redis: Redis, place: MakePlace
) -> None:
    assert place("ours", most=1, seconds=0.3).take()

    redis.flushall()

    wait_until(lambda: redis.zscore(KEY, "ours"), 2)
    assert not place("other", most=1).take()


def test_a_holder_who_lost_his_place_does_not_push_another_out(
    redis: Redis, place: MakePlace
) -> None:
    assert place("ours", most=1, seconds=0.3).take()

    redis.flushall()
    other = place("other", most=1)
    took = other.take()

    if took:  # else our renewal was quicker
        assert stays_true(lambda: redis.zrange(KEY, 0, -1) == [b"other"], 0.8)


def test_without_redis_nobody_new_starts() -> None:
    with ValkeyServer() as server:
        client = connect(server.url())
        server.stop()

        with pytest.raises(StoreUnreachable, match="redis_url"):
            Place(client, DATABASE, "new", most=2, seconds=30).take()


def test_the_key_goes_with_its_last_holder(redis: Redis, place: MakePlace) -> None:
    ours = place("ours", seconds=0.2)
    ours.take()
    ours.give_back()

    assert redis.exists(KEY) == 0
