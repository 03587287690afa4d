"""Moving rows: what a delete returns goes into dated tables, in the same statement.

A row is so in one place or the other whenever a process dies, and the row that arrives is the one
that was deleted, not one read before somebody changed it.

The statement knows the months it has tables for, and gives each row the number of its month as it
deletes it. Rows of any other month have none; the transaction is then rolled back, the month's tables
are made, and the window is done again.
"""

from collections import ChainMap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from psycopg2 import sql

from housekeeping.stores.postgres.archive_layout import (
    ARCHIVED_AT,
    ARCHIVED_BY,
    ArchiveLayout,
    ArchivePart,
)
from housekeeping.stores.postgres.archive_tables import DatedTable, dated_tables
from housekeeping.stores.postgres.cutoffs import AgeType
from housekeeping.stores.postgres.deletion import CHILD_PREFIX, Deletion, child_table, on_keys
from housekeeping.stores.postgres.move_counts import arrived, deleted
from housekeeping.stores.postgres.periods import Period
from housekeeping.stores.postgres.predicate import Predicate, age_expression
from housekeeping.stores.postgres.preflight import Target
from housekeeping.stores.postgres.ranges import Range
from housekeeping.stores.postgres.statement import Statement, identifier

_AGE = sql.Identifier("hk_age")


@dataclass(frozen=True)
class Destinations:
    """The periods a statement has tables for."""

    layout: ArchiveLayout
    periods: tuple[Period, ...]
    age_type: AgeType
    run_id: UUID
    replaying: bool = False
    """rows may be in the archive already, as after a copy was put back into the source"""
    counting: bool = False
    """a trigger or a rule may keep rows out of a dated table: count what arrives"""

    def table(self, part: int, period: int) -> DatedTable:
        return dated_tables(self.layout, self.periods[period])[part]


class Move(Deletion):
    """The statements of one window whose rows are archived."""

    def __init__(
        self, target: Target, range_: Range, predicate: Predicate, to: Destinations
    ) -> None:
        super().__init__(target.facts, target.children, range_, predicate)
        self.to = to
        self._age = age_expression(target.age)
        bounds = {}
        for number, period in enumerate(to.periods):
            bounds[f"from_{number}"], bounds[f"until_{number}"] = period.bounds(to.age_type)
        self._samples = range_.samples(target.facts)
        sampled = ChainMap(*(dict(sample.values) for sample in self._samples))
        self.values = {**self.values, **bounds, **sampled, "run_id": str(to.run_id)}

    def ages(self) -> sql.Composable:
        """Return a SELECT of the ages of the window's expired rows, called hk_age."""
        return sql.SQL("SELECT {age} AS hk_age FROM {table} WHERE {matching}").format(
            age=self._age, table=self._facts.identifier, matching=self._matching()
        )

    def glimpse(self) -> Statement | None:
        """Ask whether a few rows of the window belong to a month there is no table for.

        The rows of a few pages tell where a new month begins: 0.6 ms, where a window deleted and
        rolled back takes 120 ms.
        """
        if self.to.layout.by_run or not self._samples:
            return None
        body = sql.SQL("SELECT EXISTS (SELECT FROM ({samples}) AS hk_sample WHERE {month} IS NULL)")
        ages = [
            sql.SQL(
                "(SELECT {age} AS hk_age FROM {table} WHERE {sample} AND {expired}{limit})"
            ).format(
                age=self._age,
                table=self._facts.identifier,
                sample=sample.condition,
                expired=self._predicate.condition,
                limit=sample.limit,
            )
            for sample in self._samples
        ]
        return Statement(
            "archive.glimpse",
            body.format(samples=sql.SQL(" UNION ALL ").join(ages), month=self._period_of(_AGE)),
        )

    @property
    def tells(self) -> bool:
        return True

    def direct(self) -> Statement:
        """Move the window's expired rows; yields what `move_counts.read` reads."""
        gone = sql.SQL("hk_gone AS ({delete} RETURNING {into}{reason} AS hk_reason{rows})").format(
            delete=self._delete(),
            into=self._into_column,
            reason=self._predicate.reason,
            rows=self._returned(self.to.layout.parts[0], self._facts.name),
        )
        parts: list[sql.Composable] = [gone]
        counts: list[sql.Composable] = [self._counted()]
        self._take_further(parts, counts)
        body = sql.SQL("WITH {parts} {counts}").format(
            parts=sql.SQL(", ").join(parts), counts=sql.SQL(" UNION ALL ").join(counts)
        )
        return Statement("archive.move", body)

    def delete_pinned(self) -> Statement:
        """Move the pinned rows that still expire, and their children; yields the same."""
        return Statement("archive.move_pinned", super().delete_pinned().body)

    def drain_child(self, child: int) -> Statement:
        """Move up to %(children)s of the pinned rows' rows in one child table; yields the same."""
        one = self._children[child]
        name = identifier(f"hk_child_{child}")
        drained = sql.SQL(
            "{name} AS (DELETE FROM {child} AS hk_child USING ("
            "SELECT hk_child.tableoid AS hk_table, hk_child.ctid AS hk_row, hk_doomed.hk_into"
            " FROM {doomed} JOIN {child} AS hk_child ON {on} LIMIT %(children)s) AS hk_doomed"
            " WHERE hk_child.ctid = hk_doomed.hk_row AND hk_child.tableoid = hk_doomed.hk_table"
            " RETURNING {returned})"
        ).format(
            name=name,
            child=child_table(one),
            doomed=self._doomed_keys(one, again=True),
            on=on_keys(one),
            returned=self._of_child(child),
        )
        parts: list[sql.Composable] = [drained]
        counts: list[sql.Composable] = [self._counted_child(child)]
        self._take_part(child + 1, name, parts, counts)
        body = sql.SQL("WITH {parts} {counts}").format(
            parts=sql.SQL(", ").join(parts), counts=sql.SQL(" UNION ALL ").join(counts)
        )
        return Statement("archive.drain_children", body)

    def differing(self) -> Iterator[tuple[Statement, str]]:
        """Yield statements that count rows whose key a dated table holds with other contents, and
        that table's name.
        """
        for part, source in enumerate(self.to.layout.parts):
            for period in range(len(self.to.periods)):
                if source.key:  # else no two rows can meet
                    yield self._differing(part, period), self.to.table(part, period).label

    def _differing(self, part: int, period: int) -> Statement:
        source = self.to.layout.parts[part]
        body = sql.SQL(
            "SELECT count(*) FROM ({mine}) AS hk_mine JOIN {table} AS hk_there ON {key}"
            " WHERE {period} AND ROW({own})::record *<> ROW({there})::record"
        ).format(
            mine=self._rows_of(part),
            table=self.to.table(part, period).identifier,
            key=sql.SQL(" AND ").join(
                sql.SQL("hk_mine.{key} = hk_there.{key}").format(key=identifier(key))
                for key in source.key
            ),
            period=_within(period),
            own=_columns(source, sql.SQL("hk_mine")),
            there=_columns(source, sql.SQL("hk_there")),
        )
        return Statement("archive.differing", body)

    def _rows_of(self, part: int) -> sql.Composable:
        """Return a SELECT of the rows of a part that would move, with their period's number."""
        source = self.to.layout.parts[part]
        if not part:
            return sql.SQL("SELECT {into}{columns} FROM {table} WHERE {matching}").format(
                into=self._into_column,
                columns=_columns(source, identifier(self._facts.name)),
                table=self._facts.identifier,
                matching=self._matching(),
            )
        child = self._children[part - 1]
        return sql.SQL(
            "SELECT hk_doomed.hk_into, {columns} FROM {doomed} JOIN {child} AS hk_child ON {on}"
        ).format(
            columns=_columns(source, sql.SQL("hk_child")),
            doomed=self._doomed_keys(child, again=True),
            child=child_table(child),
            on=on_keys(child),
        )

    @property
    def _into_column(self) -> sql.Composable:
        return sql.SQL("{} AS hk_into, ").format(self._period_of(self._age))

    def _of_child(self, number: int) -> sql.Composable:
        part = self.to.layout.parts[number + 1]
        # The number first: a row that goes elsewhere is passed over without being taken apart.
        return sql.SQL("hk_doomed.hk_into, {}").format(_columns(part, sql.SQL("hk_child")))

    def _of_parent(self) -> sql.Composable:
        rows = self._returned(self.to.layout.parts[0], self._facts.name)
        return sql.SQL("{doomed}.hk_into, {doomed}.hk_reason{rows}").format(
            doomed=self._doomed_name, rows=rows
        )

    def _returned(self, part: ArchivePart, table: str) -> sql.Composable:
        return sql.SQL(", {}").format(_columns(part, identifier(table)))

    def _counted(self) -> sql.Composable:
        gone, periods = identifier("hk_gone"), len(self.to.periods)
        if len(self._predicate.reasons) == 1:
            return deleted(gone, sql.Literal("0"), periods)
        return deleted(gone, sql.SQL("hk_reason::text"), periods, sql.SQL("hk_reason"))

    def _counted_child(self, child: int) -> sql.Composable:
        label = sql.Literal(f"{CHILD_PREFIX}{child}")
        return deleted(identifier(f"hk_child_{child}"), label, len(self.to.periods))

    def _take_further(self, parts: list[sql.Composable], counts: list[sql.Composable]) -> None:
        gone = [identifier("hk_gone")]
        gone += [identifier(f"hk_child_{number}") for number in range(len(self._children))]
        for part, name in enumerate(gone):
            self._take_part(part, name, parts, counts)

    def _take_part(
        self,
        part: int,
        gone: sql.Composable,
        parts: list[sql.Composable],
        counts: list[sql.Composable],
    ) -> None:
        for period in range(len(self.to.periods)):
            into = identifier(f"hk_into_{part}_{period}")
            insert = self._insert(part, period, gone)
            parts.append(sql.SQL("{} AS ({})").format(into, insert))
            if self._counts_arrivals:
                counts.append(arrived(into, part, period))

    def _insert(self, part: int, period: int, gone: sql.Composable) -> sql.Composable:
        # What an INSERT returns is kept until it is counted (decision 7).
        returned = sql.SQL(" RETURNING 1" if self._counts_arrivals else "")
        conflict = sql.SQL(" ON CONFLICT DO NOTHING" if self.to.replaying else "")
        return sql.SQL(
            "INSERT INTO {table} ({names}, {at}, {by})"
            " SELECT {names}, now(), %(run_id)s::uuid FROM {gone} WHERE {period}{conflict}{returned}"
        ).format(
            table=self.to.table(part, period).identifier,
            names=sql.SQL(", ").join(
                identifier(column.name) for column in self.to.layout.parts[part].columns
            ),
            at=identifier(ARCHIVED_AT),
            by=identifier(ARCHIVED_BY),
            gone=gone,
            period=_within(period),
            conflict=conflict,
            returned=returned,
        )

    @property
    def _counts_arrivals(self) -> bool:
        return self.to.replaying or self.to.counting

    def _period_of(self, age: sql.Composable) -> sql.Composable:
        """Return the number of the period an age lies in; NULL for one there are no tables for."""
        if not self.to.periods:
            return sql.SQL("NULL::integer")
        if self.to.layout.by_run:
            return sql.SQL("0")
        whens = [self._when(number, age) for number in range(len(self.to.periods))]
        return sql.SQL("CASE {} END").format(sql.SQL(" ").join(whens))

    def _when(self, number: int, age: sql.Composable) -> sql.Composable:
        until = sql.SQL("{} < {}").format(age, sql.Placeholder(f"until_{number}"))
        if self.to.periods[number].months is not None:
            since = sql.SQL("{} >= {}").format(age, sql.Placeholder(f"from_{number}"))
            until = sql.SQL("{} AND {}").format(since, until)
        return sql.SQL("WHEN {} THEN {}").format(until, sql.Literal(number))


def _within(period: int) -> sql.Composable:
    return sql.SQL("hk_into = {}").format(sql.Literal(period))


def _columns(part: ArchivePart, table: sql.Composable) -> sql.Composable:
    names: Sequence[sql.Composable] = [
        sql.SQL("{}.{}").format(table, identifier(column.name)) for column in part.columns
    ]
    return sql.SQL(", ").join(names)
