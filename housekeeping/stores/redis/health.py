"""Health samples that runs share: one of them measures a database, all of them judge.

housekeeping:health:NAME            the latest sample as JSON, forgotten after 2 s
housekeeping:health:NAME:sampling   whoever measures now, for 6 s at most
"""

import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

_log = logging.getLogger("housekeeping.health")

Sample = Mapping[str, Any]

_KEEP_MS = 2_000
_SAMPLING_MS = 6_000  # longer than a sample's statement_timeouts add up to
_POLL_SECONDS = 0.02
_POLLS = 25
# A Redis that does not answer costs a socket timeout of 3 s: not before every window.
_AWAY_SECONDS = 30.0


class SharedSample:
    """The latest sample of one database. Without Redis every run measures for itself."""

    def __init__(
        self, client: Redis, name: str, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._key = f"housekeeping:health:{name}"
        self._monotonic = monotonic
        self._away_until = 0.0

    def take(self, max_age: float, measure: Callable[[], Sample]) -> Sample:
        """Return a sample younger than `max_age` seconds, measured by us if nobody else has.

        While another run is measuring, the latest one of the last two seconds will do.
        """
        if self._monotonic() < self._away_until:
            return measure()
        try:
            return self._shared(max_age) or self._measured(max_age, measure)
        except RedisError as error:
            _log.warning("health samples can't be shared through Redis for now: %s", error)
            self._away_until = self._monotonic() + _AWAY_SECONDS
            return measure()

    def _shared(self, max_age: float) -> Sample | None:
        for attempt in range(_POLLS):
            found, age = self._latest()
            if found is not None and age < max_age:
                return found
            if self._client.set(self._sampling, "1", nx=True, px=_SAMPLING_MS):
                return None
            if found is not None:
                return found
            if attempt < _POLLS - 1:
                time.sleep(_POLL_SECONDS)
        return None  # whoever began to measure is gone, or slow: two samples do no harm

    def _measured(self, max_age: float, measure: Callable[[], Sample]) -> Sample:
        try:
            # Looked at again: whoever measured may have ended between our look and our turn.
            found, age = self._latest()
            if found is not None and age < max_age:
                return found
            sample = measure()
            self._client.set(self._key, json.dumps(sample), px=_KEEP_MS)
        finally:
            self._client.delete(self._sampling)
        return sample

    def _latest(self) -> tuple[Sample | None, float]:
        """Return the sample in Redis and its age, by Redis's own clock."""
        pipeline = self._client.pipeline(transaction=True)
        pipeline.get(self._key)
        pipeline.pttl(self._key)
        text, left = pipeline.execute()
        try:
            sample = None if text is None else json.loads(text)
        except ValueError:
            return None, 0.0
        if not isinstance(sample, dict):
            return None, 0.0
        return sample, max(0.0, (_KEEP_MS - int(left)) / 1000)

    @property
    def _sampling(self) -> str:
        return f"{self._key}:sampling"
