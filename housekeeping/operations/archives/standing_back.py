"""Standing back while somebody has a whole table locked: CREATE INDEX, ALTER TABLE, LOCK."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from housekeeping.engine.pacing import Clock, Rest
from housekeeping.engine.purging import TABLE_PATIENCE_SECONDS
from housekeeping.engine.throttling import Waited
from housekeeping.policies.errors import TableBlocked
from housekeeping.policies.pace import Pace
from housekeeping.stores.postgres.conditions import Condition, condition_of
from housekeeping.stores.postgres.table_locks import Touched

_log = logging.getLogger("housekeeping.archives")
_FIRST_STEP_SECONDS, _LONGEST_STEP_SECONDS = 0.1, 5.0
_ATTEMPTS = 5
_SIGNAL = "table_lock"
Read = TypeVar("Read")


@dataclass
class StandingBack:
    """Tells a lock on a whole table from one on a row, and waits until it is gone."""

    connection: Connection
    pace: Pace
    clock: Clock
    waited: Waited
    tell: Callable[[str], None]
    """hears what is waited for"""
    heard: Callable[[], object] = field(default=lambda: None)
    """asked while waiting; raises to end it"""

    def from_lock_on(self, tables: Touched) -> bool:
        """Wait while somebody has one of the tables locked; say whether anybody had.

        Raises TableBlocked when that takes too long, and whatever `heard` raises.
        """
        begun, pause = self.clock.monotonic(), _FIRST_STEP_SECONDS
        told = False
        rest = Rest(1.0, self.clock, lambda: None)
        while (holder := tables.held_by(self.connection, self.pace)) is not None:
            seconds = self.clock.monotonic() - begun
            if seconds > TABLE_PATIENCE_SECONDS:
                raise TableBlocked(table=holder.table, seconds=int(seconds))
            if not told:
                _log.warning("%s is locked by %s; waiting for that", holder.table, holder.who)
                told = True
            self.waited.reasons[_SIGNAL] = f"{holder.table} was locked by {holder.who}"
            self.tell(f"{holder.table}, locked by {holder.who}")
            self.heard()
            self.waited.seconds[_SIGNAL] += rest.pause(pause)
            pause = min(2 * pause, _LONGEST_STEP_SECONDS)
        return told

    def read(self, tables: Touched, reading: Callable[[], Read]) -> Read:
        """Read what a lock may keep from being read, after that if it must be."""
        left = _ATTEMPTS
        while True:
            try:
                return reading()
            except DBAPIError as error:
                if condition_of(error) is not Condition.CONTENDED:
                    raise
                if not self.from_lock_on(tables):
                    left -= 1
                    if not left:
                        raise
