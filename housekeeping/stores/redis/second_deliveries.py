"""Which tasks have a message that waits to be looked at again, so that there is no second one.

housekeeping:put-off:TASK_ID    "1", forgotten when that message is due
"""

from datetime import timedelta

from redis import Redis
from redis.exceptions import RedisError


class SecondDeliveries:
    """Messages that were put off because their run goes on elsewhere."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    def is_put_off(self, task_id: str) -> bool:
        """Whether a message of this task waits already; no where Redis does not answer.

        A message too many is of no consequence, one too few would be.
        """
        try:
            return bool(self._client.exists(_key(task_id)))
        except RedisError:
            return False

    def note(self, task_id: str, until_due: timedelta) -> None:
        """Note that a message was sent, which will be due then. Call it when it is sent for sure."""
        try:
            self._client.set(_key(task_id), "1", px=until_due)
        except RedisError:
            return


def _key(task_id: str) -> str:
    return f"housekeeping:put-off:{task_id}"
