"""Notes of messages that wait, on a real server."""

from datetime import timedelta

from embedded.valkey import ValkeyServer
from housekeeping.stores.redis.connection import connect
from housekeeping.stores.redis.second_deliveries import SecondDeliveries
from tests.conditions import wait_until


def test_a_message_is_put_off_until_it_is_due(valkey: ValkeyServer) -> None:
    notes = SecondDeliveries(connect(valkey.url()))
    assert not notes.is_put_off("a")

    notes.note("a", timedelta(seconds=0.2))

    assert notes.is_put_off("a")
    assert not notes.is_put_off("b")
    wait_until(lambda: not notes.is_put_off("a"), 5)


def test_without_redis_a_message_too_many_is_sent_rather_than_one_too_few() -> None:
    with ValkeyServer() as server:
        notes = SecondDeliveries(connect(server.url()))
        server.kill()

        notes.note("a", timedelta(seconds=5))

        assert not notes.is_put_off("a")
