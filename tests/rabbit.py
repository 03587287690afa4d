"""RabbitMQ for tests: one server a session, and what is in its queues."""

from collections.abc import Iterator

import amqp
import pytest

from embedded.rabbitmq import RabbitServer, how_to_install, installed

QUEUE = "housekeeping"

needed = pytest.mark.skipif(not installed(), reason=how_to_install())


@pytest.fixture(scope="session")
def rabbit_server() -> Iterator[RabbitServer]:
    """One RabbitMQ for all tests of a process: it takes seconds to start."""
    with RabbitServer() as server:
        yield server


@pytest.fixture
def rabbit(rabbit_server: RabbitServer) -> RabbitServer:
    """It, with none of our queues; a test before may have left it killed, or its messages in it."""
    rabbit_server.start()
    with _channel(rabbit_server) as channel:
        for queue in (QUEUE, "celery"):
            channel.queue_delete(queue)
    return rabbit_server


def waiting(server: RabbitServer, queue: str = QUEUE) -> int:
    """How many messages wait in a queue, not counting those that a worker has."""
    with _channel(server) as channel:
        return int(channel.queue_declare(queue, passive=True).message_count)


class _channel:  # noqa: N801 - used as a function
    def __init__(self, server: RabbitServer) -> None:
        self._connection = amqp.Connection(f"127.0.0.1:{server.port}")

    def __enter__(self) -> amqp.Channel:
        self._connection.connect()
        return self._connection.channel()

    def __exit__(self, *_: object) -> None:
        self._connection.close()
