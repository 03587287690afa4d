"""The lease on a real Valkey: one holder, renewed, and lost in no unclear way."""

from collections.abc import Callable, Iterator

import pytest
from redis import Redis

from embedded.valkey import ValkeyServer
from housekeeping.policies.errors import LeaseLost, LeaseTaken, StoreUnreachable
from housekeeping.stores.redis.connection import connect, eviction_policy
from housekeeping.stores.redis.lease import Lease
from tests.conditions import stays_true, wait_until

TARGET = "db:5432/shop/public.events"
KEY = f"{{housekeeping:lease:{TARGET}}}"

MakeLease = Callable[..., Lease]


@pytest.fixture
def lease(redis: Redis) -> Iterator[MakeLease]:
    """Makes leases, and releases all of them when the test ends."""
    made: list[Lease] = []

    def make(run_id: str = "run", seconds: float = 30.0, client: Redis = redis) -> Lease:
        made.append(Lease(client, TARGET, run_id, seconds))
        return made[-1]

    yield make
    for each in made:
        each.release()


def held(act: Callable[[], None]) -> bool:
    try:
        act()
    except LeaseLost:
        return False
    return True


def test_of_two_only_one_holds_it_until_it_is_released(lease: MakeLease) -> None:
    first, second = lease("first"), lease("second")

    assert (first.acquire(), second.acquire()) == (True, False)
    holder = second.holder()
    assert holder is not None
    assert holder.run_id == "first"
    assert 29 < holder.seconds_left <= 30

    first.release()
    assert second.holder() is None
    assert second.acquire()


def test_another_execution_of_the_same_run_is_somebody_else(lease: MakeLease) -> None:
    assert lease("run").acquire()
    assert not lease("run").acquire()


def test_it_outlives_its_time_as_long_as_it_is_renewed(lease: MakeLease) -> None:
    ours = lease(seconds=0.3)
    assert ours.acquire()

    assert stays_true(lambda: held(ours.check), 0.9)
    assert not lease("other").acquire()


def test_a_lease_nobody_renews_expires(lease: MakeLease, redis: Redis) -> None:
    redis.set(KEY, "dead token", px=200)
    ours = lease()

    assert not ours.acquire()
    wait_until(ours.acquire, 2)


@pytest.mark.parametrize("lost", ["deleted", "flushed"])
def test_a_lease_that_vanished_is_taken_again_at_the_next_renewal(
    lease: MakeLease, redis: Redis, lost: str
) -> None:
    ours = lease(seconds=0.3)
    assert ours.acquire()

    if lost == "flushed":
        redis.flushall()
    else:
        redis.delete(KEY)

    wait_until(lambda: redis.get(KEY), 2)
    ours.check()


def test_a_stolen_lease_is_noticed_and_left_to_its_thief(lease: MakeLease, redis: Redis) -> None:
    ours = lease(seconds=0.3)
    assert ours.acquire()

    redis.set(KEY, "thief token")

    wait_until(lambda: not held(ours.check), 2)
    with pytest.raises(LeaseTaken):
        ours.check()
    ours.release()
    assert redis.get(KEY) == b"thief token"


def test_while_redis_is_away_the_lease_is_trusted_for_its_time_and_no_longer() -> None:
    with ValkeyServer() as server:
        ours = Lease(connect(server.url()), TARGET, "run", 0.6)
        assert ours.acquire()
        server.stop()

        ours.check()
        wait_until(lambda: not held(ours.check), 3)
        with pytest.raises(LeaseLost, match="could not be reached"):
            ours.check()
        ours.release()


def test_a_redis_that_is_back_in_time_loses_no_lease() -> None:
    with ValkeyServer(append_only=True) as server:
        ours = Lease(connect(server.url()), TARGET, "run", 3.0)
        assert ours.acquire()
        server.restart()

        assert stays_true(lambda: held(ours.check), 3.5)
        ours.release()


def test_without_redis_nothing_starts() -> None:
    with ValkeyServer() as server:
        client = connect(server.url())
        server.stop()

        with pytest.raises(StoreUnreachable, match="redis_url"):
            Lease(client, TARGET, "run", 30.0).acquire()


def test_a_server_that_evicts_keys_is_known_by_its_policy(redis: Redis) -> None:
    assert eviction_policy(redis) == "noeviction"
