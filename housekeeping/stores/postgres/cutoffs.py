"""Cutoffs: fixed once a run, from the database's clock, in the type of the column they meet."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.policies.errors import CutoffInFuture
from housekeeping.policies.purge import AgeUnit, PurgePolicy
from housekeeping.stores.postgres.statement import Statement, execute

_NOW = Statement("clock.now", sql.SQL("SELECT clock_timestamp()"))
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_TIMESTAMPS = ("timestamp with time zone", "timestamp without time zone", "date")
_INTEGERS = ("bigint", "integer")


def database_now(connection: Connection) -> datetime:
    """Return the database's time, UTC: a worker's clock may be wrong by hours."""
    now: datetime = execute(connection, _NOW).scalar_one()
    return now.astimezone(UTC)


def cutoffs_at(policy: PurgePolicy, now: datetime) -> dict[str, datetime]:
    """Return the cutoff of each rule by its reason.

    Raises CutoffInFuture: then every row would count as expired.
    """
    cutoffs = {rule.reason: now - rule.keep_for for rule in policy.rules}
    for reason, cutoff in cutoffs.items():
        if cutoff >= now:
            raise CutoffInFuture(policy=policy.name, reason=reason, cutoff=cutoff, now=now)
    return cutoffs


def base_type(declared: str) -> str:
    """Return a type as declared without its precision: `timestamp(3) with time zone`."""
    if "(" not in declared:
        return declared
    head, _, rest = declared.partition("(")
    return head + rest.partition(")")[2]


@dataclass(frozen=True)
class AgeType:
    """The type of an age column, and how a moment is written in it."""

    name: str
    unit: AgeUnit | None
    time_zone: str

    @property
    def counts(self) -> bool:
        """Whether it is a number of units since 1970."""
        return self.name in _INTEGERS

    @property
    def supported(self) -> bool:
        if self.counts:
            return self.unit is not None
        return self.name in _TIMESTAMPS

    def at(self, moment: datetime) -> datetime | date | int:
        """Return a moment as a value of this type, to compare with `<`.

        A date counts as expired only once its whole day is, where `time_zone` says.
        """
        if self.name in _INTEGERS:
            assert self.unit is not None
            return int((moment - EPOCH) / timedelta(seconds=1) * _PER_SECOND[self.unit])
        if self.name == "timestamp with time zone":
            return moment
        local = moment.astimezone(ZoneInfo(self.time_zone))
        return local.date() if self.name == "date" else local.replace(tzinfo=None)

    def moment(self, value: str) -> datetime | None:
        """Read a value of this type, given as text; None for what no calendar holds."""
        try:
            if self.name in _INTEGERS:
                assert self.unit is not None
                return EPOCH + timedelta(seconds=int(value) / _PER_SECOND[self.unit])
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=ZoneInfo(self.time_zone))
            return moment.astimezone(UTC)
        except (ValueError, OverflowError):
            return None  # -infinity, or before the year 1

    def seconds_before(self, value: str, now: datetime) -> float | None:
        """Return how long before `now` a value of this type, as text, lies; None if unreadable."""
        moment = self.moment(value)
        return None if moment is None else (now - moment).total_seconds()
