"""The archive of one run: which months it has tables for, and what its windows moved where."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from psycopg2 import sql
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from housekeeping.policies.pace import Pace
from housekeeping.stores.postgres.archive_layout import ArchiveLayout
from housekeeping.stores.postgres.archive_tables import dated_tables, prepare
from housekeeping.stores.postgres.conditions import sqlstate
from housekeeping.stores.postgres.connection import guarded
from housekeeping.stores.postgres.deletion import CHILD_PREFIX
from housekeeping.stores.postgres.moving import INTO_PREFIX, MISSED, Destinations, Move
from housekeeping.stores.postgres.periods import Period, periods_in
from housekeeping.stores.postgres.predicate import Predicate
from housekeeping.stores.postgres.preflight import Target
from housekeeping.stores.postgres.ranges import Range
from housekeeping.stores.postgres.statement import Statement, execute

# A statement reads what it deleted once for every month it knows. On a heap in no order all months
# are met at once; on one in the age's order each is met for a while and then never again.
_FORGOTTEN_AFTER = 20
_UNIQUE_VIOLATION = "23505"
_UNDEFINED_TABLE = "42P01"
_WORK_MEM = Statement(
    "archive.work_mem",
    # What a window deleted waits in memory to be inserted: 40 MB for 150,000 rows of 250 bytes. With
    # the default 4 MB it goes through a temporary file.
    sql.SQL("SELECT set_config('work_mem', '48MB', true)"),
)


class PeriodsMissed(Exception):
    """Rows of months the statement had no tables for: the transaction has to be rolled back."""


class RowsUncounted(Exception):
    """Rows were deleted and not all inserted: a trigger or a rule on a dated table swallowed some."""


class Archive:
    """Makes the statements of a run's windows, and the tables they move rows to."""

    def __init__(self, target: Target, layout: ArchiveLayout, run_id: UUID, now: datetime) -> None:
        self._target = target
        self._layout = layout
        self._run_id = run_id
        self._used: dict[Period, int] = {}
        self._window = 0
        self._run_period = Period.of(now) if layout.by_run else None

    @property
    def destinations(self) -> Destinations:
        """What the next statement has tables for."""
        periods = tuple(sorted(self._used, key=lambda period: period.months or 0))
        return Destinations(self._layout, periods, self._target.age_type, self._run_id)

    def statements(self, range_: Range, predicate: Predicate, *, replaying: bool) -> Move:
        to = replace(self.destinations, replaying=replaying)
        return Move(self._target, range_, predicate, to)

    def begin_window(self, connection: Connection) -> None:
        """Set what a moving transaction needs beside its guards."""
        execute(connection, _WORK_MEM)

    def learn(self, connection: Connection, range_: Range, predicate: Predicate) -> None:
        """Make the tables for every month a window holds rows of; in transactions of their own."""
        pace = self._target.policy.pace
        if self._run_period is not None:
            periods: Iterable[Period] = (self._run_period,)
        else:
            move = self.statements(range_, predicate, replaying=False)
            with guarded(connection, pace, reading=True):
                periods = periods_in(connection, self._target.age_type, move.ages(), move.values)
        for period in periods:
            with guarded(connection, _patient(pace), any_plan=True):
                prepare(connection, self._target.policy.name, self._run_id, self._layout, period)
            self._used[period] = self._window

    def forget(self) -> None:
        """Look every month up again: a table was dropped under us."""
        self._used.clear()

    def moved(self, to: Destinations, told: Counter[str]) -> dict[str, int]:
        """Take what a statement told of its inserts out of `told`; return rows by relation.

        Raises PeriodsMissed, or RowsUncounted when fewer rows arrived than were deleted.
        """
        if told.pop(MISSED, 0):
            raise PeriodsMissed
        arrived: Counter[int] = Counter()
        moved: Counter[str] = Counter()
        for label in [label for label in told if label.startswith(INTO_PREFIX)]:
            part, period = (int(each) for each in label.removeprefix(INTO_PREFIX).split(":"))
            rows = told.pop(label)
            arrived[part] += rows
            if rows:
                moved[to.table(part, period).label] += rows
                self._used[to.periods[period]] = self._window
        if not to.replaying:
            self._refuse_uncounted(told, arrived)
        return dict(moved)

    def _refuse_uncounted(self, deleted: Counter[str], arrived: Counter[int]) -> None:
        gone: Counter[int] = Counter()
        for label, rows in deleted.items():
            child = label.startswith(CHILD_PREFIX)
            gone[int(label.removeprefix(CHILD_PREFIX)) + 1 if child else 0] += rows
        for part, rows in gone.items():
            if arrived[part] != rows:
                raise RowsUncounted(
                    f"{rows} rows of {self._layout.parts[part].source.label} were deleted and "
                    f"{arrived[part]} arrived in the archive: a trigger or rule on an archive table "
                    "keeps rows out. Nothing was changed; remove it"
                )

    def end_window(self) -> None:
        """Let go of months no window has needed for a while."""
        self._window += 1
        for period, used in list(self._used.items()):
            if self._window - used > _FORGOTTEN_AFTER:
                del self._used[period]

    def clashes(self, error: DBAPIError) -> bool:
        """Say whether a row was refused because its key is in the archive already."""
        return sqlstate(error) == _UNIQUE_VIOLATION and self._names_one_of_ours(error)

    def lost_table(self, error: DBAPIError) -> bool:
        """Say whether a dated table is gone that was there when the run looked."""
        return sqlstate(error) == _UNDEFINED_TABLE

    def _names_one_of_ours(self, error: DBAPIError) -> bool:
        named = getattr(getattr(error.orig, "diag", None), "table_name", None)
        ours = {table.name for period in self._used for table in dated_tables(self._layout, period)}
        return named in ours


def archive_of(target: Target, run_id: UUID, now: datetime) -> Archive | None:
    """Return what a run on a target moves its rows with; None where it deletes."""
    return None if target.layout is None else Archive(target, target.layout, run_id, now)


def _patient(pace: Pace) -> Pace:
    """Return a pace for DDL on tables nobody but us writes to: a reader may hold one for a while."""
    return replace(pace, lock_timeout=max(pace.lock_timeout, timedelta(seconds=2)))
