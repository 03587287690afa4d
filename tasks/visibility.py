"""A worker keeps saying which messages it works on, so that a short visibility timeout is safe.

Redis does not notice when a worker dies, so a message is delivered again once its delivery is
older than the visibility timeout, and Celery never refreshes that. Both ways of setting it fail:
at the default of an hour a dead worker's task waits an hour; below the length of a task, the task
is delivered again while it runs (25 s long, timeout 10 s: three copies of it at once were seen).

With the heartbeat the timeout says how long a worker may be silent, and tasks may take as long
as they like: 60 s is right. Set `worker_soft_shutdown_timeout` below it, the worker is silent
while it waits for that.
"""

from threading import Event, Thread
from typing import Any, ClassVar

from celery import bootsteps
from celery.utils.log import get_logger

from tasks import redis_broker

_log = get_logger(__name__)

# A worker that was too busy, or the network too slow, for three beats has not lost its messages.
BEATS_PER_TIMEOUT = 4


class VisibilityHeartbeat(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
    """A step of the worker's consumer: `app.steps["consumer"].add(VisibilityHeartbeat)`.

    Every quarter of the visibility timeout it refreshes each message this worker has not settled:
    running, waiting in the pool, or waiting for its time. It beats in the worker's own loop, so
    that a worker that hangs falls silent too; only while the worker shuts down, and that loop is
    over but tasks still run, a thread does it. With a broker other than Redis it does nothing.
    """

    requires: ClassVar[set[str]] = {"celery.worker.consumer.tasks:Tasks"}

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._channel: redis_broker.Channel | None = None
        self._timer: Any = None
        self._gone = Event()

    def start(self, consumer: Any) -> None:
        """Beat on the consumer's new connection."""
        if not redis_broker.is_redis(consumer.connection):
            return
        self._channel = consumer.connection.default_channel
        self._timer = consumer.timer.call_repeatedly(self._interval, self._beat)

    def stop(self, consumer: Any) -> None:
        """Stop on a lost connection; on a shutdown beat on, tasks are still running."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._channel is not None and consumer.blueprint.state == bootsteps.CLOSE:
            Thread(target=self._beat_until_gone, name="visibility", daemon=True).start()

    def shutdown(self, consumer: Any) -> None:  # noqa: ARG002  # a step's signature
        """Fall silent: the last task has ended, the connection is about to close."""
        self._gone.set()

    @property
    def _interval(self) -> float:
        timeout = 0 if self._channel is None else self._channel.visibility_timeout
        return float(timeout) / BEATS_PER_TIMEOUT

    def _beat_until_gone(self) -> None:
        while not self._gone.wait(self._interval):
            self._beat()

    def _beat(self) -> None:
        if self._channel is None or self._channel.closed:
            return
        try:
            redis_broker.refresh(self._channel)
        except Exception as error:  # noqa: BLE001  # whatever it is, the next beat may succeed
            _log.warning("messages in work were not kept invisible, will try again: %s", error)
