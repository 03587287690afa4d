"""How many may work on one database at once: places in Redis, each kept by renewing it.

{housekeeping:working:DATABASE}   ZSET, token -> when its place falls free, in Redis's own ms
"""

import logging
import threading
from types import TracebackType
from typing import Self

from redis import Redis
from redis.exceptions import RedisError

from housekeeping.policies.errors import StoreUnreachable

_log = logging.getLogger("housekeeping.semaphore")

# Redis's own clock, as workers' clocks differ. A holder whose place fell free while nobody else
# took it (Redis was away, or came back empty) has it again at the next renewal; where all places
# are taken by then he goes on without one: his lease decides about him, not this.
_TAKE = """
local t = redis.call('time')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('zremrangebyscore', KEYS[1], '-inf', now)
if not redis.call('zscore', KEYS[1], ARGV[1])
    and redis.call('zcard', KEYS[1]) >= tonumber(ARGV[3]) then return 0 end
redis.call('zadd', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('pexpire', KEYS[1], ARGV[2] * 2)
return 1
"""


class Place:
    """One worker's place on a database."""

    def __init__(
        self, client: Redis, database: str, token: str, *, most: int, seconds: float
    ) -> None:
        """Prepare a place; nothing is taken yet.

        `most`: how many there are. `seconds`: how long the place of a dead worker stays taken.
        """
        self._client = client
        self._key = f"{{housekeeping:working:{database}}}"
        self._token = token
        self._most = most
        self._seconds = seconds
        self._given_back = threading.Event()
        self._renewal: threading.Thread | None = None

    def take(self) -> bool:
        """Take a place if one is free, and keep it until `give_back`.

        Raises StoreUnreachable when Redis does not answer: nobody new starts then.
        """
        try:
            taken = self._ask()
        except RedisError as error:
            raise StoreUnreachable(store="Redis", reason=str(error), setting="redis_url") from error
        if taken and self._renewal is None:
            self._renewal = threading.Thread(target=self._keep, daemon=True, name="place")
            self._renewal.start()
        return taken

    def give_back(self) -> None:
        """Give the place back. Redis being away is no error: it falls free by itself."""
        self._given_back.set()
        if self._renewal is not None:
            self._renewal.join()
        try:
            self._client.zrem(self._key, self._token)
        except RedisError as error:
            _log.warning("a place on a database could not be given back yet: %s", error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.give_back()

    def _ask(self) -> bool:
        milliseconds = int(self._seconds * 1000)
        return bool(self._client.eval(_TAKE, 1, self._key, self._token, milliseconds, self._most))

    def _keep(self) -> None:
        while not self._given_back.wait(self._seconds / 3):
            try:
                self._ask()
            except RedisError as error:
                _log.warning("a place on a database could not be renewed yet: %s", error)
