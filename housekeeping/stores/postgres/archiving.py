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
from housekeeping.stores.postgres.move_counts import MoveCounts, Told, read
from housekeeping.stores.postgres.moving import Destinations, Move
from housekeeping.stores.postgres.names import quoted
from housekeeping.stores.postgres.periods import Period, periods_in
from housekeeping.stores.postgres.predicate import Predicate
from housekeeping.stores.postgres.preflight import Target
from housekeeping.stores.postgres.ranges import Range
from housekeeping.stores.postgres.statement import Statement, execute

# Windows. A statement reads what it deleted once for every month it knows: 2 % of a window for each.
# On a heap in the age's order a month is met for a while and then never again. Where one does come
# again, a window was done for nothing, as much as knowing a month for 50 windows costs.
_FORGOTTEN_AFTER = 2
_FORGOTTEN_AFTER_RETURNS = 20
_UNIQUE_VIOLATION = "23505"
_UNDEFINED_TABLE = "42P01"
_WORK_MEM = Statement(
    "archive.work_mem",
    # What a window deleted waits in memory to be inserted: 40 MB for 150,000 rows of 250 bytes. With
    # the default 4 MB it goes through a temporary file.
    sql.SQL("SELECT set_config('work_mem', '48MB', true)"),
)


_INTERFERING = Statement(
    "archive.interfering",
    # Once a statement has written to a table, nobody can put a trigger or a rule on it before the
    # transaction ends: what is seen now was so then.
    sql.SQL(
        """
        SELECT EXISTS (SELECT FROM pg_class
                       WHERE oid = ANY(%(tables)s::regclass[]) AND (relhastriggers OR relhasrules))
        """
    ),
)


class PeriodsMissed(Exception):
    """Rows of months the statement had no tables for: the transaction has to be rolled back."""


class ArrivalsToCount(Exception):
    """A dated table has triggers or rules: the transaction has to be done again, counting."""


class RowsUncounted(Exception):
    """Rows were deleted and not all inserted: a trigger or a rule on a dated table swallowed some."""


class Archive:
    """Makes the statements of a run's windows, and the tables they move rows to."""

    def __init__(self, target: Target, layout: ArchiveLayout, run_id: UUID, now: datetime) -> None:
        self._target = target
        self._layout = layout
        self._run_id = run_id
        self._used: dict[Period, int] = {}
        self._forgotten: set[Period] = set()
        self._patience = _FORGOTTEN_AFTER
        self._window = 0
        self._counting = False
        self._run_period = Period.of(now) if layout.by_run else None

    @property
    def destinations(self) -> Destinations:
        """What the next statement has tables for."""
        periods = tuple(sorted(self._used, key=lambda period: period.months or 0))
        return Destinations(
            self._layout,
            periods,
            self._target.age_type,
            self._run_id,
            counting=self._counting,
        )

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
            if period in self._forgotten:
                self._patience = _FORGOTTEN_AFTER_RETURNS

    def forget(self) -> None:
        """Look every month up again: a table was dropped under us."""
        self._used.clear()

    def foresee(self, connection: Connection, move: Move) -> None:
        """Look at a few rows of a window before any goes. Raises PeriodsMissed."""
        glimpse = move.glimpse()
        if glimpse is not None and execute(connection, glimpse, **move.values).scalar_one():
            raise PeriodsMissed

    def moved(
        self, connection: Connection, to: Destinations, told: Told
    ) -> tuple[Counter[str], dict[str, int]]:
        """Return the rows that went, by label, and the rows that arrived, by relation.

        Raises PeriodsMissed, ArrivalsToCount, or RowsUncounted when fewer rows arrived than were
        deleted.
        """
        counts = read(told)
        if counts.missed:
            raise PeriodsMissed
        if not to.replaying:
            self._verify(connection, to, counts)
        moved: Counter[str] = Counter()
        for (part, period), rows in (counts.arrived if to.replaying else counts.sent).items():
            if rows:
                moved[to.table(part, period).label] += rows
        for _, period in counts.sent:
            self._used[to.periods[period]] = self._window
        return counts.gone, dict(moved)

    def _verify(self, connection: Connection, to: Destinations, counts: MoveCounts) -> None:
        if not to.counting:
            tables = [
                quoted(to.table(*place).schema, to.table(*place).name) for place in counts.sent
            ]
            if tables and execute(connection, _INTERFERING, tables=tables).scalar_one():
                self._counting = True
                raise ArrivalsToCount
            return
        for place, rows in counts.sent.items():
            if counts.arrived[place] != rows:
                source, into = self._layout.parts[place[0]].source.label, to.table(*place).label
                raise RowsUncounted(
                    f"{rows} rows of {source} were deleted and {counts.arrived[place]} arrived in"
                    f" {into}: a trigger or rule there keeps rows out. Nothing was changed; remove it"
                )

    def end_window(self) -> None:
        """Let go of months no window has needed for a while."""
        self._window += 1
        for period, used in list(self._used.items()):
            if self._window - used > self._patience:
                del self._used[period]
                self._forgotten.add(period)

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
