"""Does the broker answer? Part of `housekeeping check`."""

from typing import TYPE_CHECKING, Any

from settings.addresses import without_secrets
from tasks.command_line.finding import Finding
from tasks.command_line.group import loaded_app

if TYPE_CHECKING:
    from settings import Suite

_ANSWER_WITHIN_SECONDS = 3
_SOCKET_TIMEOUTS = {
    "socket_timeout": _ANSWER_WITHIN_SECONDS,
    "socket_connect_timeout": _ANSWER_WITHIN_SECONDS,
}


def broker_finding(suite: "Suite") -> Finding:
    """Connect to the broker as a worker does, once, and say what came of it."""
    from tasks.configuration import broker_kind  # noqa: PLC0415 - not for --help

    app: Any = loaded_app()
    timeouts = _SOCKET_TIMEOUTS if broker_kind(suite) == "redis" else {}
    connection = app.connection_for_write(
        connect_timeout=_ANSWER_WITHIN_SECONDS, transport_options=timeouts
    )
    try:
        connection.ensure_connection(max_retries=0)
        connection.default_channel  # noqa: B018 - Redis is spoken to only now
        return _answers(connection, app.conf.task_annotations or {})
    except Exception as error:  # noqa: BLE001 - every driver has errors of its own
        return Finding("error", "broker_url", _told(suite, error))
    finally:
        connection.release()


def _answers(connection: Any, limits: dict[str, dict[str, float]]) -> Finding:
    from tasks import rabbit_broker  # noqa: PLC0415 - not for --help

    if not rabbit_broker.is_rabbit(connection):
        return Finding("ok", "broker_url", "answers")
    version = rabbit_broker.server_version(connection)
    if version is None:
        return Finding("ok", "broker_url", "answers")
    name = f"RabbitMQ {'.'.join(map(str, version))}"
    longest = rabbit_broker.longest_task_seconds(limits)
    if not rabbit_broker.takes_back_too_early(version, longest):
        return Finding("ok", "broker_url", f"{name} answers")
    return Finding(
        "warning",
        "broker_url",
        f"{name} answers; it takes a message back after its consumer_timeout, 30 minutes unless "
        f"set, and a task may take {longest / 60:.0f}: the run goes on, but its message is handed "
        "around until it ends. Set consumer_timeout = "
        f"{rabbit_broker.wanted_timeout_ms(longest)} in rabbitmq.conf if it is not set (this "
        "can't be asked from here), or use RabbitMQ 3.12 or newer",
    )


def _told(suite: "Suite", error: Exception) -> str:
    reached = getattr(error, "reply_code", None)  # RabbitMQ says 403 or 530: it did answer
    what = "refuses us" if reached else "does not answer"
    reason = without_secrets(str(error)) or type(error).__name__
    return f"{suite.broker_url} {what}: {reason}"
