import json
import pickle

import pytest
import redis
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import make_url

from settings.addresses import (
    StoreUrl,
    for_celery,
    read_broker,
    read_database,
    read_redis,
    read_result_backend,
    without_secrets,
)
from settings.connection_strings import npgsql_to_url, stackexchange_to_url

SECRET = "h4rd-to-guess"


@pytest.mark.parametrize(
    ("given_url", "canonical"),
    [
        ("postgresql://me@db/jobs", "postgresql://me@db/jobs"),
        ("postgres://me@db/jobs", "postgresql://me@db/jobs"),
        ("postgresql+psycopg2://me@db:5432/jobs", "postgresql://me@db:5432/jobs"),
        ("POSTGRESQL://db/jobs\n", "postgresql://db/jobs"),
        ("postgresql://[::1]:5432/jobs?sslmode=require", None),
        ("postgresql:///jobs?host=/run/postgresql", None),
        ("postgresql://me:a%40b%2Fc@db/jobs", None),
    ],
)
def test_a_database_address_is_accepted_and_its_scheme_made_one(
    given_url: str, canonical: str | None
) -> None:
    assert read_database(given_url).reveal() == (canonical or given_url)


@pytest.mark.parametrize(
    ("given_url", "canonical"),
    [
        ("redis://cache", "redis://cache"),
        ("redis://:pw@cache:6379/2", "redis://:pw@cache:6379/2"),
        ("rediss://cache:6380/0?ssl_cert_reqs=none", "rediss://cache:6380/0?ssl_cert_reqs=none"),
        ("valkey://cache:6379/1", "redis://cache:6379/1"),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock?db=1"),
    ],
)
def test_a_redis_address_is_accepted(given_url: str, canonical: str) -> None:
    assert read_redis(given_url).reveal() == canonical


@pytest.mark.parametrize(
    "url", ["amqp://guest@mq//", "amqps://mq/jobs", "pyamqp://mq", "redis://cache/1"]
)
def test_a_broker_may_be_another_queue(url: str) -> None:
    assert read_broker(url).reveal() == url


@pytest.mark.parametrize("url", ["memory://", "MEMORY://localhost/", "filesystem://", "sqs://"])
def test_a_broker_no_worker_can_be_reached_through_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"start it with one of redis://, rediss://.*, amqps://"):
        read_broker(url)


def test_results_nobody_else_can_see_are_refused() -> None:
    with pytest.raises(ValueError, match="nobody would see a result; start it with one of"):
        read_result_backend("cache+memory://")


@pytest.mark.parametrize("scheme", ["amqp", "amqps", "pyamqp"])
def test_a_rabbitmq_address_keeps_its_virtual_host_and_hides_its_password(scheme: str) -> None:
    given_url = f"{scheme}://hk:{SECRET}@mq:5671/jobs%2Fnight"

    read = read_broker(given_url)

    assert read.reveal() == given_url
    assert str(read) == f"{scheme}://hk:***@mq:5671/jobs%2Fnight"
    assert SECRET not in repr(read)


@pytest.mark.parametrize("url", ["rpc://", "disabled://", "rediss://cache/1"])
def test_results_may_be_kept_elsewhere(url: str) -> None:
    assert read_result_backend(url).reveal() == url


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://db/jobs", "http:// is not accepted; start it with one of postgresql://"),
        ("db:5432/jobs", "has no scheme"),
        ("", "give an address such as"),
        (5, "give an address such as"),
        ("postgresql://a,b/jobs", "names several hosts"),
        ("postgresql://db:70000/jobs", "port 70000"),
        (f"postgresql://me:{SECRET}@x@db/jobs", "write @ as %40"),
        (f"postgresql://me:{SECRET}/x@db/jobs", "write @ as %40"),
        (f"postgresql://me:{SECRET}?x@db/jobs", "write @ as %40"),
        (f"postgresql://me:{SECRET}#x@db/jobs", "write @ as %40"),
        (f"postgresql://me:{SECRET} x@db/jobs", "write @ as %40"),
        (f"postgresql://me:{SECRET}@db:port/jobs", "write @ as %40"),
    ],
)
def test_a_wrong_database_address_is_refused_without_repeating_it(url: object, told: str) -> None:
    with pytest.raises(ValueError, match=told) as refused:
        read_database(url)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("amqp://mq", "amqp:// is not accepted; start it with one of redis://, rediss://, unix://"),
        ("redis://cache/zero", "no database number"),
        ("unix://", "names no socket"),
    ],
)
def test_a_wrong_redis_address_is_refused(url: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read_redis(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"postgresql://me:{SECRET}@db/jobs", "postgresql://me:***@db/jobs"),
        (f"redis://:{SECRET}@cache/0", "redis://:***@cache/0"),
        (f"redis://{SECRET}@cache/0", "redis://***@cache/0"),
        (f"postgresql://db/jobs?password={SECRET}", "postgresql://db/jobs?password=***"),
        (
            f"postgresql://db/jobs?sslpassword={SECRET}&sslmode=require",
            "postgresql://db/jobs?sslpassword=***&sslmode=require",
        ),
        (f"postgresql://me:{SECRET}@x/y@db/jobs", "postgresql://me:***@db/jobs"),
        ("postgresql://me@db/jobs", "postgresql://me@db/jobs"),
        (f"Host=db;Password='a;{SECRET}';Port=1", "Host=db;Password=***;Port=1"),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, shown: str) -> None:
    assert str(StoreUrl(url)) == shown
    assert SECRET not in f"{StoreUrl(url)!r} {StoreUrl(url)}"
    assert StoreUrl(url).reveal() == url


PASSWORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).map(
    lambda tail: SECRET + tail
)


@given(PASSWORDS)
def test_no_password_of_a_valid_address_is_ever_shown(password: str) -> None:
    quoted = '"' + password.replace('"', '""') + '"'
    url = read_database(npgsql_to_url(f"Host=db;Database=jobs;Username=me;Password={quoted}"))
    assert SECRET not in f"{url} {url!r}"
    assert make_url(url.reveal()).password == password


@given(PASSWORDS.filter(lambda password: "," not in password and password == password.strip()))
def test_a_redis_password_arrives_as_it_was_written(password: str) -> None:
    url = read_redis(stackexchange_to_url(f"cache:6379,password={password}"))
    assert SECRET not in f"{url} {url!r}"
    with redis.Redis.from_url(url.reveal()) as client:
        assert client.connection_pool.connection_kwargs["password"] == password


@given(st.text())
def test_any_text_can_be_shown(text: str) -> None:
    without_secrets(text)


def test_an_address_survives_pickle_and_compares_by_value() -> None:
    url = StoreUrl(f"redis://:{SECRET}@cache/0")
    assert pickle.loads(pickle.dumps(url)) == url
    assert len({url, StoreUrl(url.reveal())}) == 1
    with pytest.raises(TypeError):
        json.dumps(url)


@pytest.mark.parametrize(
    ("socket", "meant"),
    [
        ("unix:///run/redis.sock?db=2", {"path": "/run/redis.sock", "db": 2, "password": None}),
        ("unix://:pw@/run/redis.sock", {"path": "/run/redis.sock", "db": 0, "password": "pw"}),
        ("unix:///run/redis.sock?db=1&password=pw", {"db": 1, "password": "pw"}),
    ],
)
def test_celery_understands_a_socket_address(socket: str, meant: dict[str, object]) -> None:
    url = for_celery(StoreUrl(socket)).reveal()
    parameters = Celery(broker=url, backend=url).backend.connparams
    assert {key: parameters.get(key) for key in meant} == meant
