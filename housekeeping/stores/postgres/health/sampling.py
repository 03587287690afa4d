"""All health signals measured: in one short transaction that reads, where each of them can be."""

import hashlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from psycopg2 import sql
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from housekeeping.policies.health import HealthLimits
from housekeeping.policies.pace import Pace
from housekeeping.stores.postgres.conditions import Condition, condition_of, sentence
from housekeeping.stores.postgres.connection import guarded
from housekeeping.stores.postgres.health.archiver import ArchiveBacklog
from housekeeping.stores.postgres.health.disk import DiskHeadroom
from housekeeping.stores.postgres.health.own_sql import OwnSql
from housekeeping.stores.postgres.health.replication import ReplicationLag
from housekeeping.stores.postgres.health.signals import UNKNOWN, Signal
from housekeeping.stores.postgres.health.slots import ReplicationSlots
from housekeeping.stores.postgres.health.vacuum import VacuumOnTable
from housekeeping.stores.postgres.health.waiters import LockWaiters
from housekeeping.stores.postgres.health.wal_rate import WalRate
from housekeeping.stores.postgres.statement import Statement, execute, identifier

ROLE = "role"
"""key of a sample under which whoever measured it stands"""


class _Brief(Pace):
    """A measurement that takes longer is worth less than the wait."""

    @property
    def statement_timeout(self) -> timedelta:
        return timedelta(seconds=2)


_PACE = _Brief(lock_timeout=timedelta(milliseconds=100))


def signals_for(limits: HealthLimits, tables: frozenset[int] = frozenset()) -> tuple[Signal, ...]:
    """Return the signals a policy asks; `tables` are the oids of those it changes."""
    if not limits.enabled:
        return ()
    signals: list[Signal] = [
        ReplicationLag(limits),
        ReplicationSlots(limits),
        LockWaiters(limits),
        VacuumOnTable(limits, tables),
        ArchiveBacklog(limits),
    ]
    if limits.max_wal_rate is not None:
        signals.append(WalRate(limits))
    if limits.min_free_disk is not None:
        signals.append(DiskHeadroom(limits))
    if limits.sql is not None:
        signals.append(OwnSql(limits))
    return tuple(signals)


class Sampler:
    """Measures signals on a connection between two of its transactions."""

    def __init__(self, connection: Connection, signals: Sequence[Signal]) -> None:
        self._connection = connection
        # A query of the user's own may be slow or wrong: it must not cost us the other signals.
        self._together = [each for each in signals if not each.own]
        self._apart = [each for each in signals if each.own]

    def identity(self) -> str:
        """Return what only samplers of the same role that measure the same have in common."""
        texts = [_asking([each]).text(self._connection) for each in self._together + self._apart]
        user = self._connection.engine.url.username or ""
        return hashlib.sha256("\0".join([user, *texts]).encode()).hexdigest()[:12]

    def measure(self) -> dict[str, Any]:
        """Return the facts of every signal by its name.

        Where one can't be measured its facts say why. Raises DBAPIError when the connection is gone.
        """
        try:
            sample = self._ask(self._together)
        except DBAPIError as error:
            _raise_if_gone(error)
            sample = self._one_by_one(self._together)
        return sample | self._one_by_one(self._apart)

    def _one_by_one(self, signals: Sequence[Signal]) -> dict[str, Any]:
        sample: dict[str, Any] = {}
        for signal in signals:
            try:
                sample |= self._ask([signal])
            except DBAPIError as error:
                _raise_if_gone(error)
                sample[signal.name] = {UNKNOWN: sentence(error)}
        return sample

    def _ask(self, signals: Sequence[Signal]) -> dict[str, Any]:
        with guarded(self._connection, _PACE, reading=True, any_plan=True):
            return dict(execute(self._connection, _asking(signals)).mappings().one())


def _asking(signals: Sequence[Signal]) -> Statement:
    columns = [sql.SQL("current_user::text AS {}").format(identifier(ROLE))]
    columns += [
        sql.SQL("{} AS {}").format(signal.measurement, identifier(signal.name))
        for signal in signals
    ]
    return Statement("health.sample", sql.SQL("SELECT {}").format(sql.SQL(", ").join(columns)))


def _raise_if_gone(error: DBAPIError) -> None:
    if condition_of(error) is Condition.CONNECTION_LOST:
        raise error
