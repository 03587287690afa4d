from collections.abc import Iterator

import pytest
from redis import Redis

from embedded.valkey import ValkeyServer
from housekeeping.stores.redis.schedule_edits import ScheduleEdit, ScheduleEdits

_KEY = "housekeeping:schedule:edits"


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.fixture(params=[False, True], ids=["bytes", "text"])
def client(server: ValkeyServer, request: pytest.FixtureRequest) -> Iterator[Redis]:
    with Redis.from_url(server.url(), decode_responses=request.param) as client:
        client.flushdb()
        yield client


def test_what_was_saved_is_there_for_everybody(client: Redis) -> None:
    ScheduleEdits(client).save("nightly", ScheduleEdit(cron="15 2 * * *"))
    ScheduleEdits(client).save("weekly", ScheduleEdit(enabled=False))

    assert ScheduleEdits(client).all() == {
        "nightly": ScheduleEdit(cron="15 2 * * *"),
        "weekly": ScheduleEdit(enabled=False),
    }


def test_the_hash_holds_only_what_was_edited(client: Redis) -> None:
    ScheduleEdits(client).save("nightly", ScheduleEdit(enabled=True))

    assert client.hget(_KEY, "nightly") in ('{"enabled": true}', b'{"enabled": true}')


def test_a_later_edit_takes_the_place_of_an_earlier_one(client: Redis) -> None:
    edits = ScheduleEdits(client)
    edits.save("nightly", ScheduleEdit(cron="15 2 * * *", enabled=False))
    edits.save("nightly", ScheduleEdit(enabled=False))

    assert edits.all() == {"nightly": ScheduleEdit(enabled=False)}


def test_forgotten_and_empty_edits_are_gone(client: Redis) -> None:
    edits = ScheduleEdits(client)
    edits.save("nightly", ScheduleEdit(enabled=False))
    edits.save("weekly", ScheduleEdit(enabled=False))

    edits.forget("nightly")
    edits.forget("nightly")
    edits.save("weekly", ScheduleEdit())

    assert edits.all() == {}
    assert not client.exists(_KEY)


@pytest.mark.parametrize(
    "broken", ["{", "[]", '"0 2 * * *"', '{"cron": 5}', '{"enabled": "no"}', b"\xff"]
)
def test_an_edit_that_cannot_be_read_is_reported_and_hides_no_other(
    server: ValkeyServer, broken: str | bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with Redis.from_url(server.url()) as client:
        client.flushdb()
        client.hset(_KEY, "broken", broken)
        ScheduleEdits(client).save("nightly", ScheduleEdit(enabled=False))

        assert list(ScheduleEdits(client).all()) == ["nightly"]
    assert "'broken'" in caplog.text
