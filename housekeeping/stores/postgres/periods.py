"""The months rows are archived by. A month begins and ends in UTC, in the type of the age it is
compared with, so that asking for a row's month and moving it there can't disagree.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.stores.postgres.cutoffs import AgeType
from housekeeping.stores.postgres.statement import Statement, execute

_MONTHS = 12
_EARLIEST = (
    2 * _MONTHS
)  # January of the year 2: before it a time zone would lead out of the calendar
_LATEST = 9998 * _MONTHS
UNDATED = "undated"


@dataclass(frozen=True, order=True)
class Period:
    """A month of a row's age, or none: ages before the year 2, -infinity among them."""

    months: int | None
    """since the year 0; None is undated"""

    @classmethod
    def of(cls, moment: datetime | date) -> "Period":
        """Return the month of a moment; one with a time zone is read in UTC."""
        if isinstance(moment, datetime) and moment.tzinfo is not None:
            moment = moment.astimezone(UTC)
        return cls(moment.year * _MONTHS + moment.month - 1)

    @property
    def label(self) -> str:
        """Return what a dated table's name says: `2024_01`."""
        if self.months is None:
            return UNDATED
        return f"{self.months // _MONTHS:04d}_{self.months % _MONTHS + 1:02d}"

    def bounds(self, age_type: AgeType) -> tuple[object, object]:
        """Return the first age in the period and the first one after it; None is no first."""
        if self.months is None:
            return None, age_type.at(_start(_EARLIEST))
        return age_type.at(_start(self.months)), age_type.at(_start(self.months + 1))


def _start(months: int) -> datetime:
    return datetime(months // _MONTHS, months % _MONTHS + 1, 1, tzinfo=UTC)


def periods_in(
    connection: Connection,
    age_type: AgeType,
    expired: sql.Composable,
    values: Mapping[str, Any],
) -> tuple[Period, ...]:
    """Return the months of expired rows. `expired`: a SELECT of their ages, called hk_age."""
    span = Statement(
        "archive.span",
        sql.SQL(
            """
            SELECT min(hk_age) FILTER (WHERE hk_age >= %(earliest)s)::text, max(hk_age)::text,
                   coalesce(bool_or(hk_age < %(earliest)s), false)
            FROM ({}) AS hk_ages
            """
        ).format(expired),
    )
    earliest = age_type.at(_start(_EARLIEST))
    oldest, youngest, undated = execute(connection, span, **values, earliest=earliest).one()
    found = (Period(None),) if undated else ()
    if oldest is None:
        return found
    first, last = _month_near(age_type, oldest, -1), _month_near(age_type, youngest, +1)
    starts = range(first, last + 1)
    months = Statement(
        "archive.months",
        # The buckets' bounds are those rows will be moved by. Bucket 0 lies before the first.
        sql.SQL("SELECT DISTINCT width_bucket(hk_age, %(starts)s) FROM ({}) AS hk_ages").format(
            expired
        ),
    )
    bounds = [age_type.at(_start(month)) for month in starts]
    buckets = sorted(execute(connection, months, **values, starts=bounds).scalars())
    return found + tuple(Period(starts[bucket - 1]) for bucket in buckets if bucket)


def _month_near(age_type: AgeType, age: str, beside: int) -> int:
    """Return the month of an age given as text, or the one beside it, as time zones may shift it."""
    moment = age_type.moment(age)
    if moment is None:
        return _EARLIEST
    months = moment.year * _MONTHS + moment.month - 1 + beside
    return min(max(months, _EARLIEST), _LATEST)
