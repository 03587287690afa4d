"""Celery's configuration, from our settings: what differs from the defaults, and why.

Each value was seen to matter in fault tests (tests/faults); see docs/decisions for the stories.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import click

import settings
from housekeeping.policies.errors import EXIT_CONFIGURATION, ConfigurationRefused
from settings import Suite
from tasks.recruiting import SHARE

_WIND_UP_SECONDS = 300  # between a run's own time budget and the limit that ends it from outside
_HARD_AFTER_SOFT_SECONDS = 60
_SHORTEST_HEARTBEAT_SECONDS, _LONGEST_HEARTBEAT_SECONDS = 5, 60
MAX_RETRIES = 5
RETRY_DELAY_SECONDS = 5


class RefusedToStart(ConfigurationRefused, click.ClickException):  # type: ignore[misc] # both have a message
    """The configuration can't be used; `celery` shows the message and exits 65, no traceback."""

    exit_code = EXIT_CONFIGURATION  # type: ignore[misc] # click declares it on the instance

    def __init__(self, message: str = "") -> None:
        ConfigurationRefused.__init__(self, message)
        click.ClickException.__init__(self, message)


@cache
def current_suite() -> Suite:
    """Return this process's settings, loaded once.

    Raises RefusedToStart, a ConfigurationRefused, when they can't be used.
    """
    try:
        return settings.load()
    except ConfigurationRefused as refused:
        raise RefusedToStart(refused.args[0]) from refused


def __getattr__(name: str) -> Any:
    # Celery asks for `celery_settings` when it first needs its configuration.
    if name == "celery_settings":
        return celery_configuration(current_suite())
    raise AttributeError(name)


def celery_configuration(suite: Suite) -> dict[str, Any]:
    """Return Celery's configuration for these settings."""
    return {
        **_broker(suite),
        **_results(suite),
        **_execution(suite),
        **_beat(suite),
        "timezone": "UTC",
        "enable_utc": True,
    }


def _broker(suite: Suite) -> dict[str, Any]:
    return {
        "broker_url": suite.broker_url.reveal(),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "worker_consumer": "tasks.consumer:ConnectionKeepingConsumer",
        # On Redis it revokes the running task and loses its message. On RabbitMQ it would end a run
        # that goes on very well by itself: its message is put off until the run has ended.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        **_REDIS_OR_RABBIT[broker_kind(suite)](suite),
    }


def broker_kind(suite: Suite) -> str:
    """Return which settings the broker takes: `redis` or `amqp`."""
    return "amqp" if suite.broker_url.reveal().startswith(("amqp", "pyamqp")) else "redis"


def _redis_broker(suite: Suite) -> dict[str, Any]:
    return {
        "broker_transport_options": {
            # Short, because VisibilityHeartbeat renews it: a dead worker costs a minute, not an hour.
            "visibility_timeout": suite.visibility_timeout.total_seconds(),
            "unacked_restore_interval": min(5, suite.visibility_timeout.total_seconds() / 4),
            "unacked_restore_throttle": 1,
            "unacked_mutex_expire": 30,  # a sweeper killed at it blocks the others for that long
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 10,
            # Never retry_on_timeout: with redis-py 8 the worker's main loop then blocks for good.
        }
    }


def _rabbit_broker(suite: Suite) -> dict[str, Any]:
    return {
        # Without it `delay()` and beat return before RabbitMQ has the message; one that is lost
        # on the way (a broker that restarts, a connection cut) is never missed.
        "broker_transport_options": {"confirm_publish": True},
        # RabbitMQ gives a host up after two heartbeats it did not hear: its tasks are handed out
        # again after the visibility timeout, as on Redis. A killed worker's are at once.
        "broker_heartbeat": min(
            max(int(suite.visibility_timeout.total_seconds() / 2), _SHORTEST_HEARTBEAT_SECONDS),
            _LONGEST_HEARTBEAT_SECONDS,
        ),
    }


_REDIS_OR_RABBIT: dict[str, Callable[[Suite], dict[str, Any]]] = {
    "redis": _redis_broker,
    "amqp": _rabbit_broker,
}


def _results(suite: Suite) -> dict[str, Any]:
    return {
        "result_backend": suite.result_backend.reveal(),
        # Without it a task that ends while the backend is away becomes FAILURE ConnectionError.
        "result_backend_always_retry": True,
        "result_backend_max_retries": 50,
        "result_extended": True,
        "result_expires": 7 * 24 * 3600,
        "redis_socket_keepalive": True,
        "redis_socket_connect_timeout": 5,
        "task_track_started": True,
        "task_send_sent_event": True,
        "worker_send_task_events": True,
    }


def _execution(suite: Suite) -> dict[str, Any]:
    return {
        "task_default_queue": suite.queue,
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        # Bounded by max_retries, where reject alone would loop on a task that kills its worker.
        "task_retry_on_worker_lost": True,
        "worker_prefetch_multiplier": 1,
        # Below the visibility timeout: the main process is silent meanwhile.
        "worker_soft_shutdown_timeout": min(30, suite.visibility_timeout.total_seconds() / 2),
        "task_annotations": _limits(suite),
    }


def _limits(suite: Suite) -> dict[str, dict[str, float]]:
    """Return soft and hard limits a task, in seconds: the net below the runs' own budgets.

    A task runs all its policies one after the other, so their budgets add up.
    """
    budgets: dict[str, float] = {}
    for policy in suite.all_policies():
        budget = policy.pace.time_budget.total_seconds()
        budgets[policy.task] = budgets.get(policy.task, 0) + budget
        if policy.pace.workers > 1:
            budgets[SHARE] = max(budgets.get(SHARE, 0), budget)
    return {
        task: {
            "soft_time_limit": budget + _WIND_UP_SECONDS,
            "time_limit": budget + _WIND_UP_SECONDS + _HARD_AFTER_SOFT_SECONDS,
        }
        for task, budget in budgets.items()
    }


def _beat(suite: Suite) -> dict[str, Any]:
    return {
        "beat_scheduler": "tasks.scheduler:ResilientScheduler",
        "redbeat_redis_url": suite.redis_url.reveal(),
        "redbeat_redis_options": {
            "socket_timeout": 5,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
        },
        "redbeat_key_prefix": "housekeeping:redbeat:",
        "beat_max_loop_interval": 5,
        # At least five loops: at 1.5 loops the lock was lost every 46 minutes (redbeat issue 230).
        "redbeat_lock_timeout": 30,
        "beat_enable_remote_control": True,
    }
