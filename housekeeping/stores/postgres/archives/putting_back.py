"""The statements that put archived rows back: moved from a dated table, or inserted from an export.

A row whose key is taken, or whose parent is gone, stays in the archive. Nothing is overwritten.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.policies.pace import Pace
from housekeeping.stores.postgres.archives.columns import Destination
from housekeeping.stores.postgres.archives.literals import bound, typed_values
from housekeeping.stores.postgres.archives.rows import (
    TextRow,
    read_canonical_text,
    text_of,
    write_canonical_text,
)
from housekeeping.stores.postgres.connection import guarded
from housekeeping.stores.postgres.ranges import HeapRange
from housekeeping.stores.postgres.statement import Statement, execute, identifier
from housekeeping.stores.postgres.window_ledger import WindowLedger, try_fence

RESTORED, KEY_TAKEN, PARENT_MISSING = "restored", "key_taken", "parent_missing"
ALREADY_THERE, REFUSED = "already_there", "refused"

_TAKE_OFF = Statement("archives.take_off", sql.SQL(
    "UPDATE housekeeping.archive_table SET rows = rows - %(rows)s"
    " WHERE relation = %(relation)s AND dropped_at IS NULL"
))  # fmt: skip
_BATCH, _FIT, _PUT = "hk_batch", "hk_fit", "hk_put"
_PLACE = "hk_place"  # where a row stands in its batch


_DONE = Statement(
    "archives.put_back_before",
    # Ranges that touch are one: a whole restore is a single row.
    sql.SQL(
        """
        SELECT unnest(coalesce(range_agg(int8range(lower::bigint, upper::bigint)), '{}'))
        FROM housekeeping.run_window WHERE target = %(target)s AND walk = %(walk)s
        """
    ),
)


class FenceTaken(Exception):
    """A batch of another run is at the table at this moment."""


class NotAllTaken(Exception):
    """The source did not take every row, and nothing tells which: the window is rolled back."""


@dataclass(frozen=True)
class PuttingBack:
    """Puts rows back into one source table, a bounded transaction at a time."""

    connection: Connection
    to: Destination
    ledger: WindowLedger
    pace: Pace
    walk: str = "restore"
    """what its windows are called in the ledger"""

    def move(
        self, archive: sql.Identifier, relation: str, window: HeapRange, number: int
    ) -> Counter[str]:
        """Move the rows of a window of a dated table; return how many, and how many stayed why.

        Raises DBAPIError for what the server refuses, NotAllTaken, FenceTaken.
        """
        statement = self._moving(archive) if self.to.key else self._moving_all(archive)
        with guarded(self.connection, self.pace):
            self._fence()
            seen, fit, put, gone = execute(self.connection, statement, **window.values).one()
            if put != gone or (not self.to.key and put != seen):
                raise NotAllTaken
            counts = Counter({RESTORED: put, KEY_TAKEN: fit - put, PARENT_MISSING: seen - fit})
            execute(self.connection, _TAKE_OFF, relation=relation, rows=put)
            self._record(number, window.bounds(), counts)
        return counts

    def insert(
        self, rows: Sequence[TextRow], places: tuple[int, int], number: int
    ) -> tuple[Counter[str], list[TextRow]]:
        """Insert rows of an export, their values in the order of the destination's columns.

        Returns counts, and the rows whose key is taken: `there_already` tells which by themselves.
        `places`: of the first row in the export, and after the last. Raises as `move` does.
        """
        with guarded(self.connection, self.pace, any_plan=True):
            self._fence()
            read_canonical_text(self.connection)
            left = self._insert(rows)
            counts = Counter({RESTORED: len(rows) - len(left)})
            counts[PARENT_MISSING] = sum(not fit for fit in left.values())
            self._record(number, (str(places[0]), str(places[1])), counts)
        return counts, [rows[place] for place, fit in left.items() if fit]

    def done(self) -> list[tuple[int, int]]:
        """Return which rows of an export any run has put back: places from, and up to.

        Without a key nothing else tells whether a row is there.
        """
        with guarded(self.connection, self.pace, reading=True, any_plan=True):
            found = execute(self.connection, _DONE, target=self.ledger.relation, walk=self.walk)
            return [(each.lower, each.upper) for each in found.scalars()]

    def _fence(self) -> None:
        if not try_fence(self.connection, self.to.facts.oid):
            raise FenceTaken

    def _record(self, number: int, bounds: tuple[str, str], counts: Counter[str]) -> None:
        self.ledger.record(
            self.connection,
            number=number,
            walk=self.walk,
            bounds=bounds,
            counts=Counter({RESTORED: counts[RESTORED]}),
            rows=counts[RESTORED],
        )

    @property
    def _names(self) -> sql.Composable:
        return _list([column.name for column in self.to.columns])

    def _insertion(self, rows: str, returning: sql.Composable) -> sql.Composable:
        return sql.SQL(
            "INSERT INTO {source} ({names}) OVERRIDING SYSTEM VALUE SELECT {names} FROM {rows}"
            " {conflict} RETURNING {returning}"
        ).format(
            source=self.to.facts.identifier,
            names=self._names,
            rows=identifier(rows),
            conflict=sql.SQL("ON CONFLICT DO NOTHING" if self.to.key else ""),
            returning=returning,
        )

    def _fitting(self) -> sql.Composable:
        # A row of the table itself may come in this very statement: its foreign key will tell.
        conditions = [parent.present(_BATCH) for parent in self.to.parents if not parent.itself]
        return sql.SQL(" AND ").join([sql.SQL("true"), *conditions])

    def _same_key(self, left: str, right: str) -> sql.Composable:
        return sql.SQL(" AND ").join(
            sql.SQL("{} = {}").format(identifier(left, each), identifier(right, each))
            for each in self.to.key
        )

    def _moving(self, archive: sql.Identifier) -> Statement:
        body = sql.SQL(
            """
            WITH hk_batch AS MATERIALIZED (
                SELECT {names} FROM {archive} AS hk_row
                WHERE hk_row.ctid >= %(lower)s::tid AND hk_row.ctid < %(upper)s::tid FOR UPDATE),
            hk_fit AS MATERIALIZED (SELECT * FROM hk_batch WHERE {fitting}),
            hk_put AS ({insertion}),
            -- Only what was read: a trigger may have given a row the key of another.
            hk_gone AS (DELETE FROM {archive} AS hk_row USING hk_put WHERE {same}
                AND hk_row.ctid >= %(lower)s::tid AND hk_row.ctid < %(upper)s::tid RETURNING 1)
            SELECT (SELECT count(*) FROM hk_batch), (SELECT count(*) FROM hk_fit),
                   (SELECT count(*) FROM hk_put), (SELECT count(*) FROM hk_gone)
            """
        ).format(
            names=self._names,
            archive=archive,
            fitting=self._fitting(),
            insertion=self._insertion(_FIT, _list(self.to.key)),
            same=self._same_key("hk_row", _PUT),
        )
        return Statement("archives.move_back", body)

    def _moving_all(self, archive: sql.Identifier) -> Statement:
        """Without a key nothing tells which rows were taken: all are, or none."""
        body = sql.SQL(
            """
            WITH hk_batch AS (
                DELETE FROM {archive} AS hk_row
                WHERE hk_row.ctid >= %(lower)s::tid AND hk_row.ctid < %(upper)s::tid
                RETURNING {names}),
            hk_put AS ({insertion})
            SELECT (SELECT count(*) FROM hk_batch), (SELECT count(*) FROM hk_batch),
                   (SELECT count(*) FROM hk_put), (SELECT count(*) FROM hk_batch)
            """
        ).format(
            names=self._names,
            archive=archive,
            insertion=self._insertion(_BATCH, sql.SQL("1")),
        )
        return Statement("archives.move_all_back", body)

    def _insert(self, rows: Sequence[TextRow]) -> dict[int, bool]:
        """Insert rows; return the places of those not taken, and whether their parents are there."""
        if not self.to.key:
            return self._insert_all(rows)
        body = sql.SQL(
            """
            WITH hk_batch ({place}, {names}) AS (VALUES {values}),
            hk_fit AS MATERIALIZED (SELECT * FROM hk_batch WHERE {fitting}),
            hk_put AS ({insertion})
            SELECT hk_batch.{place}, EXISTS (SELECT FROM hk_fit WHERE hk_fit.{place} = hk_batch.{place}),
                   (SELECT count(*) FROM hk_put)
            FROM hk_batch WHERE NOT EXISTS (SELECT FROM hk_put WHERE {same})
            """
        ).format(
            place=identifier(_PLACE),
            names=self._names,
            values=self._values(rows),
            fitting=self._fitting(),
            insertion=self._insertion(_FIT, _list(self.to.key)),
            same=self._same_key(_PUT, _BATCH),
        )
        values = bound(rows)
        left = execute(self.connection, Statement("archives.insert_back", body), **values).all()
        if left and left[0][2] != len(rows) - len(left):
            raise NotAllTaken  # some were put under another key, and would be again the next time
        return {place: fit for place, fit, _ in left}

    def _insert_all(self, rows: Sequence[TextRow]) -> dict[int, bool]:
        body = sql.SQL(
            """
            WITH hk_batch ({place}, {names}) AS (VALUES {values}), hk_put AS ({insertion})
            SELECT count(*) FROM hk_put
            """
        ).format(
            place=identifier(_PLACE),
            names=self._names,
            values=self._values(rows),
            insertion=self._insertion(_BATCH, sql.SQL("1")),
        )
        statement = Statement("archives.insert_all_back", body)
        if execute(self.connection, statement, **bound(rows)).scalar_one() != len(rows):
            raise NotAllTaken
        return {}

    def _values(self, rows: Sequence[TextRow]) -> sql.Composable:
        """Return rows as VALUES, each with its place before its values."""
        casts = [column.cast for column in self.to.columns]
        return typed_values(len(rows), casts, places=True)

    def there_already(self, rows: Sequence[TextRow]) -> int:
        """Count rows of an export that the source holds as they are: put back earlier."""
        if not rows:
            return 0
        names = [column.name for column in self.to.columns]
        key_places = [names.index(name) for name in self.to.key if name in names]
        casts = [self.to.columns[place].cast for place in key_places]
        keys = [tuple(row[place] for place in key_places) for row in rows]
        body = sql.SQL("SELECT {} FROM {} WHERE ({}) IN (VALUES {})").format(
            sql.SQL(", ").join(text_of(name) for name in names),
            self.to.facts.identifier,
            _list([names[place] for place in key_places]),
            typed_values(len(keys), casts),
        )
        statement = Statement("archives.look_for", body)
        with guarded(self.connection, self.pace, reading=True, any_plan=True):
            write_canonical_text(self.connection)
            found = execute(self.connection, statement, **bound(keys))
            there = Counter(tuple(row) for row in found)
        return sum((there & Counter(tuple(row) for row in rows)).values())


def _list(names: Sequence[str]) -> sql.Composable:
    return sql.SQL(", ").join(identifier(name) for name in names)
