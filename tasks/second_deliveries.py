"""What becomes of a message that was handed out a second time while its run goes on.

RabbitMQ does that as soon as the connection is gone on which it was handed out first, and after its
consumer_timeout. It may be no more than a hiccup of the network; the run is none the wiser.
"""

from celery import Task
from celery.exceptions import Ignore, Reject
from celery.utils.log import get_task_logger
from redis import Redis

from housekeeping.policies.errors import RunInHand
from housekeeping.stores.redis.second_deliveries import SecondDeliveries
from tasks.configuration import current_suite

_log = get_task_logger(__name__)


def put_off(task: Task, in_hand: RunInHand, redis: Redis) -> Exception:
    """Send the message again, unchanged, for later; return what Celery wants raised for it.

    When the run has ended, the message answers from the ledger; when its worker dies, the message
    takes the run over. It is no retry: those are for outages, and five of them would be over long
    before the run is. Nothing is stored as the task's result.

    A message whose connection was lost meanwhile comes back although it was sent again. So that
    each such loss does not double the messages, one that finds another waiting goes away.
    """
    waiting, later = SecondDeliveries(redis), current_suite().lease_ttl
    task_id = str(task.request.id)
    settled: Exception = Ignore()
    if waiting.is_put_off(task_id):
        return settled
    message = task.signature_from_request(
        countdown=later.total_seconds(), retries=task.request.retries, expires=None
    )
    try:
        message.apply_async()
    except Exception as unsent:  # noqa: BLE001 - whatever it is, the broker keeps the message
        settled = Reject(unsent, requeue=True)
    else:
        # Not before: noted and not sent, it would have the other one go away too.
        waiting.note(task_id, later)
        _log.info("%s; looking again in %.0f s", in_hand.message, later.total_seconds())
    return settled
