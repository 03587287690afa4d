"""When a consumer asks RabbitMQ for more time than half an hour, and how it reads the version."""

from types import SimpleNamespace
from typing import Any

import pytest
from kombu import Queue

from tasks.rabbit_broker import (
    ask_for_time,
    longest_task_seconds,
    server_version,
    takes_back_too_early,
)

HOUR = 3600.0
MORE = {"x-consumer-timeout": (60 + 15) * 60_000}


def connection(version: str, product: str = "RabbitMQ") -> Any:
    properties = {"product": product, "version": version}
    return SimpleNamespace(connection=SimpleNamespace(server_properties=properties))


@pytest.mark.parametrize(
    ("told", "version"),
    [
        ("3.10.8", (3, 10, 8)),
        ("4.0.0-rc.1", (4, 0, 0)),
        ("3.12.0+2.gabc", (3, 12, 0)),
        ("unknown", None),
        ("", None),
    ],
)
def test_a_version_is_read_or_not_known(told: str, version: tuple[int, ...] | None) -> None:
    assert server_version(connection(told)) == version


def test_another_product_has_no_version_of_rabbitmq() -> None:
    assert server_version(connection("2.1.0", "LavinMQ")) is None


@pytest.mark.parametrize(
    ("version", "asked"),
    [("3.10.8", {}), ("3.11.15", MORE), ("3.13.7", MORE), ("4.2.1", MORE), ("4.3.0", {})],
)
def test_a_consumer_asks_for_time_where_rabbitmq_listens(
    version: str, asked: dict[str, int]
) -> None:
    queue = Queue("q", consumer_arguments={"x-priority": 1})

    ask_for_time(connection(version), [queue], HOUR)

    assert queue.consumer_arguments == {"x-priority": 1, **asked}


def test_short_tasks_ask_for_nothing() -> None:
    queue = Queue("q")

    ask_for_time(connection("3.13.7"), [queue], 600)

    assert not queue.consumer_arguments


def test_only_an_old_server_takes_long_tasks_back() -> None:
    assert takes_back_too_early((3, 10, 8), HOUR)
    assert not takes_back_too_early((3, 10, 8), 600)
    assert not takes_back_too_early((3, 13, 0), HOUR)
    assert not takes_back_too_early(None, HOUR)


def test_the_longest_task_is_the_one_that_is_ended_last() -> None:
    assert longest_task_seconds({"a": {"time_limit": 5.0}, "b": {"time_limit": 7.0}}) == 7
    assert longest_task_seconds({}) == 0
