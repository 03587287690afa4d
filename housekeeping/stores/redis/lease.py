"""A run's lease on a target: a unique token in Redis, renewed by a thread, checked before each window.

The lease keeps two runs from starting on one target. It is not what makes deleting safe: that is
the fence in PostgreSQL, which holds even when Redis was flushed, restarted or lied.

    {housekeeping:lease:TARGET}   "RUN_ID TOKEN", expires after the lease's time to live
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import uuid4

from redis import Redis
from redis.exceptions import RedisError

from housekeeping.policies.errors import LeaseLost, LeaseTaken, StoreUnreachable

_log = logging.getLogger("housekeeping.lease")

# Answers 1 renewed, 2 taken again after it had vanished (FLUSHALL, a restart without persistence:
# the fence tells whether somebody else ran meanwhile), 0 somebody else has it.
_RENEW = """
local holder = redis.call('get', KEYS[1])
if holder == ARGV[1] then redis.call('pexpire', KEYS[1], ARGV[2]) return 1 end
if not holder then redis.call('set', KEYS[1], ARGV[1], 'PX', ARGV[2]) return 2 end
return 0
"""
_RELEASE = (
    "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"
)


@dataclass(frozen=True)
class Holder:
    """Who holds a lease."""

    run_id: str
    seconds_left: float


class Lease:
    """One execution's claim on a target.

    The token is new for every execution: a redelivered task has the same run id, and must not be
    taken for the copy it replaces.
    """

    def __init__(
        self,
        client: Redis,
        target: str,
        run_id: str,
        seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.target = target
        self._client = client
        self._key = f"{{housekeeping:lease:{target}}}"
        self._token = f"{run_id} {uuid4().hex}"
        self._seconds = seconds
        self._monotonic = monotonic
        self._valid_until = 0.0
        self._taken = False
        self._released = threading.Event()
        self._renewal: threading.Thread | None = None

    def acquire(self) -> bool:
        """Take the lease if nobody holds it, and keep renewing it until `release`.

        Raises StoreUnreachable when Redis does not answer: without a lease nothing starts.
        """
        asked = self._monotonic()
        try:
            taken = self._client.set(self._key, self._token, nx=True, px=self._milliseconds)
        except RedisError as error:
            raise _unreachable(error) from error
        if not taken:
            return False
        self._valid_until = asked + self._seconds
        self._renewal = threading.Thread(target=self._keep_renewing, daemon=True, name="lease")
        self._renewal.start()
        return True

    def holder(self) -> Holder | None:
        """Return who holds the lease now."""
        try:
            value = self._client.get(self._key)
            left = self._client.pttl(self._key)
        except RedisError as error:
            raise _unreachable(error) from error
        if value is None:
            return None
        text = value.decode() if isinstance(value, bytes) else str(value)
        return Holder(text.partition(" ")[0], max(0.0, int(left) / 1000))

    def check(self) -> None:
        """Raise LeaseLost when the lease is no longer surely ours, LeaseTaken when it is another's."""
        if self._taken:
            raise LeaseTaken(target=self.target)
        if self._monotonic() >= self._valid_until:
            raise LeaseLost(target=self.target, reason="Redis could not be reached to renew it")

    def release(self) -> None:
        """Give the lease back if it is still ours. Redis being away is no error: it expires."""
        self._released.set()
        if self._renewal is not None:
            self._renewal.join()
        try:
            self._client.eval(_RELEASE, 1, self._key, self._token)
        except RedisError as error:
            _log.warning(
                "the lease on %s could not be released and will expire: %s", self.target, error
            )

    @property
    def _milliseconds(self) -> int:
        return int(self._seconds * 1000)

    def _keep_renewing(self) -> None:
        while not self._released.wait(self._seconds / 3):
            if not self._renew():
                return

    def _renew(self) -> bool:
        # Validity counts from before the request: the answer may have been on its way for long.
        asked = self._monotonic()
        try:
            answer = self._client.eval(_RENEW, 1, self._key, self._token, self._milliseconds)
        except RedisError as error:
            _log.warning("the lease on %s could not be renewed yet: %s", self.target, error)
            return True
        if answer == 0:
            self._taken = True
            return False
        if answer == 2:  # noqa: PLR2004 - see _RENEW
            _log.warning("the lease on %s had vanished from Redis and was taken again", self.target)
        self._valid_until = asked + self._seconds
        return True


def _unreachable(error: RedisError) -> StoreUnreachable:
    return StoreUnreachable(store="Redis", reason=str(error), setting="redis_url")
