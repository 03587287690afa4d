"""A worker consumer that carries its work over from a lost Redis connection to the next one.

When the connection breaks, stock Celery hands every unsettled message back, also those whose
tasks go on running: after a mere TCP reset the same task ran twice in parallel within a second
(more than 30 of 30 runs of 5.7.0). With the broker down it exits (11 of 11 runs), because closing
the channel wants to put messages back over the connection that is gone. An ack that fails is lost,
and the finished task runs again.

Here nothing is decided while there is no connection. On the next one, each message that was
unsettled on the old one gets what is due to it:

    its task is in the pool     kept: noted again as unacked, acked when the task ends
    its task has ended          its ack or reject is sent now
    nobody works on it          goes back to its queue at once

RabbitMQ returns unsettled messages by itself: there the stock behaviour applies, and a message that
comes back while its run goes on is put off by `tasks.second_deliveries`.
Use: `worker_consumer = "tasks.consumer:ConnectionKeepingConsumer"`.
"""

# ruff: noqa: SLF001 - only Celery's internals tell what the pool has taken

from collections import Counter
from collections.abc import Callable
from functools import partial
from logging import Logger
from typing import Any

from celery.concurrency.asynpool import _get_job_writer
from celery.utils.functional import noop
from celery.utils.log import get_logger
from celery.worker.consumer import Consumer
from celery.worker.state import active_requests, reserved_requests, task_reserved
from kombu.common import ignore_errors
from kombu.transport.virtual import Message

from tasks import rabbit_broker, redis_broker

_log = get_logger(__name__)

REPEAT_ANSWERS_S = 5.0  # a broker that was too slow for an ack is asked again this much later


class CarriedMessage(Message):
    """A message that remembers the ack or reject it owes until a broker has taken it.

    The two methods are the ones a worker answers with, and keep their names: while a worker shuts
    down it sends only callbacks that it knows by these.
    """

    answer: Callable[[], None] | None = None

    def ack_log_error(self, logger: Logger, errors: Any, multiple: bool = False) -> None:  # noqa: FBT001, FBT002
        """Ack now, or on the next connection if there is none."""
        self._give(partial(super().ack_log_error, logger, errors, multiple))

    def reject_log_error(self, logger: Logger, errors: Any, requeue: bool = False) -> None:  # noqa: FBT001, FBT002
        """Reject now, or on the next connection if there is none."""
        self._give(partial(super().reject_log_error, logger, errors, requeue))

    def repeat_answer(self) -> None:
        """Send again what the broker has not taken; do nothing if it has, or nothing is owed."""
        if self.answer is not None:
            self._give(self.answer)

    def _give(self, answer: Callable[[], None]) -> None:
        self.answer = answer
        if self.channel is not None and not self.acknowledged:
            answer()


class ConnectionKeepingConsumer(Consumer):  # type: ignore[misc]  # Celery has no types
    """Celery's consumer, except for what happens to messages when the connection is lost."""

    pool: Any
    loop: Any
    _carried: dict[str, CarriedMessage] | None = None
    """What the lost connection left unsettled; None while connected."""
    _repeater: Any = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if redis_broker.is_redis(self.conninfo):
            # Carried messages count against the prefetch limit of the next connection. Celery's
            # own correction, which lowers the limit instead, would count them twice.
            self.app.conf.worker_enable_prefetch_count_reduction = False
        elif rabbit_broker.is_rabbit(self.conninfo):
            self.loop = partial(rabbit_broker.outlive_overdue_deliveries, self.loop)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Close what is left of the connection and take its unsettled messages along."""
        channels = redis_broker.redis_channels(self.connection)
        for channel in channels:
            redis_broker.disown(channel)
        super().on_connection_error_after_connected(exc)
        if channels:
            self._carry_over(channels)

    def call_soon_ack(self, p: Any, *arguments: Any, **options: Any) -> Any:
        """Have an ack or reject (the bound method `p`) sent by the event loop.

        Noted already here: a thread may end its task while there is no loop to send anything.
        """
        message = getattr(p, "__self__", None)
        if isinstance(message, CarriedMessage):
            message.answer = partial(p, *arguments, **options)
        return super().call_soon_ack(p, *arguments, **options)

    def on_close(self) -> None:
        """Forget what waits in this worker; on a lost connection, not what is in the pool."""
        if self._carried is None:
            super().on_close()
            return
        in_pool = _requests_in_the_pool()
        # The stock version flushes the pool. That would forget tasks a child process has received
        # but not yet confirmed: they would run, and again from the message that went back.
        _finish_started_writes(self.pool)
        pool, self.pool = self.pool, None
        try:
            super().on_close()
        finally:
            self.pool = pool
        for request in in_pool:
            task_reserved(request)
            if self.pool.uses_semaphore:  # all slots were freed; this one still takes one
                self.controller.semaphore.acquire(noop)

    def connect(self) -> Any:
        """Connect as the stock version does, and hand the carried work over before anything else.

        Before the transport joins the event loop, because it then sweeps at once.
        """
        connection = self.connection_for_read(heartbeat=self.amqheartbeat)
        if redis_broker.is_redis(connection):
            channel = connection.default_channel
            try:
                self._resume_on(channel)
            except BaseException:
                redis_broker.disown(channel)
                ignore_errors(connection, connection.release)  # type: ignore[no-untyped-call]
                raise
        elif rabbit_broker.is_rabbit(connection):
            connection.connect()
            rabbit_broker.ask_for_time(
                connection,
                self.app.amqp.queues.consume_from.values(),
                rabbit_broker.longest_task_seconds(self.app.conf.task_annotations or {}),
            )
        if self.hub:
            connection.transport.register_with_event_loop(connection.connection, self.hub)
        return connection

    def _carry_over(self, channels: list[redis_broker.Channel]) -> None:
        # After closing: that still reads what was on its way, and may deliver one message more.
        carried = self._carried or {}
        for channel in channels:
            carried.update(redis_broker.unsettled(channel))
        for message in carried.values():
            message.channel = None
        self._carried = carried

    def _resume_on(self, channel: redis_broker.Channel) -> None:
        channel.Message = CarriedMessage
        redis_broker.hold_back_sweeps(channel)
        if self._carried:
            in_pool = {request.message.delivery_tag for request in _requests_in_the_pool()}
            done = Counter(
                _settle_or_keep(message, channel, in_pool) for message in self._carried.values()
            )
            _log.info(
                "the broker is back: %d message(s) of running tasks kept, %d of finished tasks "
                "answered, %d put back",
                *(done[outcome] for outcome in ("kept", "answered", "put back")),
            )
        self._carried = None
        if self._repeater is not None:
            self._repeater.cancel()
        self._repeater = self.timer.call_repeatedly(REPEAT_ANSWERS_S, _repeat_answers, (channel,))


def _settle_or_keep(
    message: CarriedMessage, channel: redis_broker.Channel, in_pool: set[str]
) -> str:
    """Give one carried message what is due to it; say what that was.

    Raises what the transport raises when this connection breaks too. Everything is then tried
    again on the next: none of the three does harm twice.
    """
    tag = message.delivery_tag
    if message.answer is not None:
        message.channel = channel
        message.repeat_answer()
        if not message.acknowledged:
            message.channel = None
            raise ConnectionResetError(f"the broker did not take the answer to message {tag}")
        return "answered"
    if tag in in_pool:
        message.channel = channel
        # Also writes it down in Redis, which may have come back without its data.
        channel.qos.append(message, tag)
        return "kept"
    channel.qos.restore_by_tag(tag)
    return "put back"


def _repeat_answers(channel: redis_broker.Channel) -> None:
    # Without this an ack that timed out on a living connection would take up a place of the
    # prefetch limit for ever: at one task at a time the worker would never do anything again.
    if channel.closed:
        return
    for message in redis_broker.unsettled(channel).values():
        message.repeat_answer()


def _requests_in_the_pool() -> list[Any]:
    """Return the requests handed to the pool whose message has not been answered."""
    requests = {*reserved_requests, *active_requests}
    # `_apply_result` is set when a request is handed over, and never unset.
    return [each for each in requests if each._apply_result is not None and not each.acknowledged]


def _finish_started_writes(pool: Any) -> None:
    """Write the rest of a task whose first bytes a child process has.

    Needed because the event loop, which would have done it, has just dropped its writers. Only
    for a task larger than a socket's buffer; the others are written in one go.
    """
    prefork = getattr(pool, "_pool", None)
    started = getattr(prefork, "_active_writers", None)
    if prefork is None or not started:
        return
    for job in tuple(prefork._cache.values()):
        if (writer := _get_job_writer(job)) in started:
            prefork._flush_writer(job._write_to, writer)
