"""Where rows would move to: the dated tables of a run that has not made any yet; reads only."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from housekeeping.policies.pace import Pace
from housekeeping.policies.purge import TableName
from housekeeping.stores.postgres.archive_layout import ArchiveLayout
from housekeeping.stores.postgres.archive_tables import dated_tables
from housekeeping.stores.postgres.catalog import find_table
from housekeeping.stores.postgres.conditions import Condition, condition_of
from housekeeping.stores.postgres.connection import guarded
from housekeeping.stores.postgres.moving import Destinations, Move
from housekeeping.stores.postgres.periods import Period, periods_in
from housekeeping.stores.postgres.predicate import Predicate
from housekeeping.stores.postgres.preflight import Target
from housekeeping.stores.postgres.ranges import Range


class ArchivePreview:
    """Finds the months of expired rows, and which of their tables are there."""

    def __init__(
        self,
        connection: Connection,
        target: Target,
        layout: ArchiveLayout,
        run_id: UUID,
        now: datetime,
    ) -> None:
        self._connection = connection
        self._target = target
        self._layout = layout
        self._run_id = run_id
        self._now = now
        self._found: set[Period] = set()
        self._complete = layout.by_run
        self._timed_out = False

    def look(self, range_: Range, predicate: Predicate, *, whole: bool) -> tuple[Period, ...]:
        """Return the months of a range's expired rows. `whole`: the range is all of a walk."""
        self._complete = self._complete or whole
        if self._layout.by_run:
            periods: tuple[Period, ...] = (Period.of(self._now),)
        else:
            move = self._move(range_, predicate, ())
            pace = self._target.policy.pace
            try:
                with guarded(self._connection, pace, reading=True):
                    periods = periods_in(
                        self._connection, self._target.age_type, move.ages(), move.values
                    )
            except DBAPIError as error:
                if condition_of(error) not in (Condition.TOO_SLOW, Condition.CONTENDED):
                    raise
                periods, self._timed_out = (), True
        self._found.update(periods)
        return periods

    def move(self, range_: Range, predicate: Predicate, periods: tuple[Period, ...]) -> Move:
        """Return the statements that would move a range's rows."""
        return self._move(range_, predicate, periods)

    def made(self, periods: tuple[Period, ...]) -> tuple[Period, ...]:
        """Return the months all of whose tables are there."""
        return tuple(
            period
            for period in periods
            if all(self._exists(*table) for table in self._tables(period))
        )

    def as_dict(self) -> dict[str, Any]:
        """Tell the dated tables. `complete`: no expired row would go to another one."""
        ordered = sorted(self._found, key=lambda period: period.months or 0)
        with guarded(self._connection, Pace(), reading=True, any_plan=True):
            tables = [
                {"table": f"{schema}.{name}", "exists": self._exists(schema, name)}
                for period in ordered
                for schema, name in dict.fromkeys(self._tables(period))
            ]
        return {"tables": tables, "complete": self._complete and not self._timed_out}

    def _tables(self, period: Period) -> list[tuple[str, str]]:
        return [(table.schema, table.name) for table in dated_tables(self._layout, period)]

    def _exists(self, schema: str, name: str) -> bool:
        return find_table(self._connection, TableName(name, schema)) is not None

    def _move(self, range_: Range, predicate: Predicate, periods: tuple[Period, ...]) -> Move:
        to = Destinations(self._layout, periods, self._target.age_type, self._run_id)
        return Move(self._target, range_, predicate, to)
