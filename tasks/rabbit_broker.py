"""RabbitMQ's consumer_timeout: how long a message may be in work before RabbitMQ takes it back.

30 minutes by default, less than a run of ours may take. RabbitMQ then closes the channel and hands
the message out again while the task goes on. A stock worker then takes no more tasks and exits when
those it has are over ("Unrecoverable error: PreconditionFailed"); ours connects anew, and
`tasks.second_deliveries` puts the message off until the run has ended. So no harm is done, but a
consumer that may ask for more time had better do so.

    before 3.11.15      only the server's own setting counts: `consumer_timeout` in rabbitmq.conf
    3.11.15 to 4.2      a consumer's argument `x-consumer-timeout` goes before the server's setting
    from 4.3 on         ordinary queues have no such timeout, and may refuse the argument

https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from amqp.exceptions import PreconditionFailed  # type: ignore[import-untyped]

_ASKS_FROM, _ASKS_BEFORE = (3, 11, 15), (4, 3)
DEFAULT_TIMEOUT_SECONDS = 30 * 60
_MARGIN_SECONDS = 15 * 60  # a message may have waited in the worker before its task began

Version = tuple[int, ...]


def is_rabbit(connection: Any) -> bool:
    """Whether a connection speaks AMQP."""
    return bool(connection.transport.driver_type == "amqp")


def server_version(connection: Any) -> Version | None:
    """Return the version an AMQP server says it has; None where it says none of that kind."""
    properties: Mapping[str, Any] = connection.connection.server_properties
    words = str(properties.get("version", "")).split("-")[0].split("+")[0].split(".")
    if properties.get("product") != "RabbitMQ" or not all(word.isdecimal() for word in words):
        return None
    return tuple(int(word) for word in words)


def longest_task_seconds(annotations: Mapping[str, Mapping[str, float]]) -> float:
    """Return after how many seconds the longest task is ended from outside; 0 without tasks."""
    return max((limits["time_limit"] for limits in annotations.values()), default=0.0)


def takes_back_too_early(version: Version | None, longest_seconds: float) -> bool:
    """Whether a server left at its defaults takes messages back from tasks that still run."""
    too_long = longest_seconds > DEFAULT_TIMEOUT_SECONDS
    return version is not None and version < _ASKS_FROM and too_long


def wanted_timeout_ms(longest_seconds: float) -> int:
    """Return the consumer_timeout that no task reaches, in milliseconds."""
    return int(longest_seconds + _MARGIN_SECONDS) * 1000


def ask_for_time(connection: Any, queues: Iterable[Any], longest_seconds: float) -> None:
    """Have the queues consumed from with a timeout that no task reaches, where one may ask."""
    version = server_version(connection)
    wanted = wanted_timeout_ms(longest_seconds)
    if (
        version is None
        or not _ASKS_FROM <= version < _ASKS_BEFORE
        or wanted <= (DEFAULT_TIMEOUT_SECONDS * 1000)
    ):
        return
    for queue in queues:
        others = queue.consumer_arguments or {}
        queue.consumer_arguments = {**others, "x-consumer-timeout": wanted}


def outlive_overdue_deliveries(loop: Callable[..., None], *arguments: Any) -> None:
    """Run a worker's event loop; take a channel closed for an overdue delivery for a lost connection.

    Only in the loop: the same error while queues are declared says that the worker can't work.
    """
    try:
        loop(*arguments)
    except PreconditionFailed as overdue:
        raise ConnectionResetError(str(overdue)) from overdue
