"""The statements that make rows go. Each repeats the predicate, so a row that stops matching stays.

direct   one range DELETE: 1.8 M rows/s, no row locks of its own
pinned   lock, look again, delete: for rows that take children along or that another table
         keeps, for a row limit, and for a window in which somebody holds a row
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from psycopg2 import sql

from housekeeping.stores.postgres.catalog import TableFacts
from housekeeping.stores.postgres.held_relatives import way_down
from housekeeping.stores.postgres.names import apart_from
from housekeeping.stores.postgres.predicate import Predicate
from housekeeping.stores.postgres.ranges import Range
from housekeeping.stores.postgres.relatives import Child
from housekeeping.stores.postgres.statement import Statement, identifier

CHILD_PREFIX = "child:"

_DOOMED = sql.Identifier("hk_doomed")

# Rows that this transaction has locked carry its id in xmax. A second statement, which sees what
# was committed before the locks were ours, so deletes those rows and no others.
_PINNED = sql.SQL("{row}.xmax = pg_current_xact_id()::xid")


class Deletion:
    """Builds the statements of one window."""

    def __init__(
        self, facts: TableFacts, children: Sequence[Child], range_: Range, predicate: Predicate
    ) -> None:
        self._facts = facts
        self._children = children
        self._predicate = predicate
        self._range = range_
        self._window = range_.condition(facts)
        self.values: Mapping[str, Any] = {**predicate.values, **range_.values}

    @property
    def tells(self) -> bool:
        """Whether `direct` returns rows; the last of their columns is called count."""
        return len(self._predicate.reasons) > 1

    def direct(self) -> Statement:
        """Delete the window's expired rows; yields (rule number, rows) where there are several rules."""
        if not self.tells:
            return Statement("purge.delete", self._delete())
        body = sql.SQL(
            "WITH hk_gone AS ({delete} RETURNING {reason} AS hk_reason)"
            " SELECT hk_reason::text, count(*) FROM hk_gone GROUP BY hk_reason"
        ).format(delete=self._delete(), reason=self._predicate.reason)
        return Statement("purge.delete", body)

    def _delete(self) -> sql.Composable:
        return sql.SQL("DELETE FROM {table} WHERE {matching}").format(
            table=self._facts.identifier, matching=self._matching()
        )

    def pin(self, *, skip_locked: bool) -> Statement:
        """Lock up to %(limit)s of the window's expired rows and count them."""
        body = sql.SQL(
            "SELECT count(*) FROM (SELECT FROM {table} WHERE {matching}"
            " LIMIT %(limit)s FOR UPDATE OF {name}{skip}) AS hk_pinned"
        ).format(
            table=self._facts.identifier,
            name=identifier(self._facts.name),
            matching=self._matching(),
            skip=sql.SQL(" SKIP LOCKED" if skip_locked else ""),
        )
        return Statement("purge.pin", body)

    def count_children(self, child: Child) -> Statement:
        """Count the pinned rows' rows in one child table, up to %(children)s."""
        body = sql.SQL(
            "SELECT count(*) FROM (SELECT FROM {doomed} JOIN {child} AS hk_child ON {on}"
            " LIMIT %(children)s) AS hk_counted"
        ).format(doomed=self._doomed_keys(child), child=child_table(child), on=on_keys(child))
        return Statement("purge.count_children", body)

    def pin_children(self, child: Child, *, skip_locked: bool) -> Statement:
        """Lock the pinned rows' rows in a child table that may keep them: what a user is changing
        there is waited for, or passed over together with its parent.
        """
        body = sql.SQL(
            "SELECT count(*) FROM (SELECT FROM {doomed} JOIN {child} AS hk_child ON {on}"
            " FOR UPDATE OF hk_child{skip}) AS hk_pinned"
        ).format(
            doomed=self._doomed_keys(child),
            child=child_table(child),
            on=on_keys(child),
            skip=sql.SQL(" SKIP LOCKED" if skip_locked else ""),
        )
        return Statement("purge.pin_children", body)

    def pin_relatives(self, *, skip_locked: bool) -> Iterator[Statement]:
        """Lock the rows further down that may come to be held, each level after the one above it:
        nobody can add a row below one that is locked.
        """
        for relative in self._predicate.relatives:
            for way in relative.levels():
                body = sql.SQL(
                    "SELECT count(*) FROM (SELECT FROM (SELECT {columns} FROM {table}"
                    " WHERE {window} AND {pinned}) AS hk_doomed{way} FOR UPDATE OF hk_last{skip})"
                    " AS hk_pinned"
                ).format(
                    columns=_names(way[0].parent_columns),
                    table=self._facts.identifier,
                    way=way_down(way, "hk_doomed", "hk_last"),
                    window=self._window,
                    pinned=self._pinned(),
                    skip=sql.SQL(" SKIP LOCKED" if skip_locked else ""),
                )
                yield Statement("purge.pin_relatives", body)

    def drain(self, child: Child) -> Statement:
        """Delete up to %(children)s of the pinned rows' rows in one child table."""
        # A partitioned table has one row (0,1) in each partition: the table's oid tells them apart.
        body = sql.SQL(
            "DELETE FROM {child} AS hk_child USING ("
            "SELECT hk_child.tableoid AS hk_table, hk_child.ctid AS hk_row"
            " FROM {doomed} JOIN {child} AS hk_child ON {on} LIMIT %(children)s) AS hk_drained"
            " WHERE hk_child.ctid = hk_drained.hk_row AND hk_child.tableoid = hk_drained.hk_table"
        ).format(
            doomed=self._doomed_keys(child, again=True), child=child_table(child), on=on_keys(child)
        )
        return Statement("purge.drain_children", body)

    def delete_pinned(self) -> Statement:
        """Delete the pinned rows that still expire, their children first; yields (label, rows)."""
        columns = {c: None for child in self._children for c in child.foreign_key.parent_columns}
        parts: list[sql.Composable] = [
            sql.SQL(
                "hk_doomed AS MATERIALIZED (SELECT {into}{row} AS hk_row, {reason} AS hk_reason{columns}"
                " FROM {table} WHERE {pinned} AND {matching})"
            ).format(
                row=identifier(self._facts.name, "ctid"),
                reason=self._predicate.reason,
                into=self._into_column,
                columns=sql.SQL("").join(
                    sql.SQL(", {}").format(identifier(column)) for column in columns
                ),
                table=self._facts.identifier,
                pinned=self._pinned_with_keepers(),
                matching=self._matching(),
            )
        ]
        counts = [self._counted()]
        for number, child in enumerate(self._children):
            name = identifier(f"hk_child_{number}")
            parts.append(
                sql.SQL(
                    "{name} AS (DELETE FROM {child} AS hk_child USING hk_doomed"
                    " WHERE {on} RETURNING {returned})"
                ).format(
                    name=name,
                    child=child_table(child),
                    on=on_keys(child),
                    returned=self._of_child(number),
                )
            )
            counts.append(self._counted_child(number))
        parts.append(
            sql.SQL(
                "hk_gone AS (DELETE FROM {table} USING hk_doomed AS {doomed}"
                " WHERE {row} = {doomed}.hk_row RETURNING {returned})"
            ).format(
                table=self._facts.identifier,
                doomed=self._doomed_name,
                row=identifier(self._facts.name, "ctid"),
                returned=self._of_parent(),
            )
        )
        self._take_further(parts, counts)
        body = sql.SQL("WITH {parts} {counts}").format(
            parts=sql.SQL(", ").join(parts), counts=sql.SQL(" UNION ALL ").join(counts)
        )
        return Statement("purge.delete_pinned", body)

    @property
    def _doomed_name(self) -> sql.Composable:
        return identifier(apart_from(self._facts.name, "hk_doomed"))

    @property
    def _into_column(self) -> sql.Composable:
        """Return `NUMBER AS hk_into, ` where rows go on to one of several tables."""
        return sql.SQL("")

    def _of_child(self, number: int) -> sql.Composable:  # noqa: ARG002 - a move returns its columns
        """Return what the delete of a child's rows returns."""
        return sql.SQL("1")

    def _of_parent(self) -> sql.Composable:
        """Return what the delete of the rows themselves returns."""
        return sql.SQL("{}.hk_reason").format(self._doomed_name)

    def _counted(self) -> sql.Composable:
        """Return a SELECT that counts the deleted rows by reason."""
        return sql.SQL("SELECT hk_reason::text, count(*) FROM hk_gone GROUP BY hk_reason")

    def _counted_child(self, child: int) -> sql.Composable:
        """Return a SELECT that counts a child's deleted rows."""
        return sql.SQL("SELECT {label}, count(*) FROM {name}").format(
            label=sql.Literal(f"{CHILD_PREFIX}{child}"), name=identifier(f"hk_child_{child}")
        )

    def _take_further(self, parts: list[sql.Composable], counts: list[sql.Composable]) -> None:
        """Add what becomes of the deleted rows, and what of it is counted."""

    def count(self) -> Statement:
        """Count up to %(limit)s of the window's expired rows by rule: what a dry run would delete,
        or what stayed.
        """
        body = sql.SQL(
            "SELECT hk_reason, count(*) FROM (SELECT {reason} AS hk_reason FROM {table}"
            " WHERE {matching} LIMIT %(limit)s) AS hk_expired GROUP BY hk_reason"
        ).format(
            reason=self._predicate.reason,
            table=self._facts.identifier,
            matching=self._matching(),
        )
        return Statement("purge.count", body)

    def count_doomed_children(self, child: Child) -> Statement:
        """Count the rows of a child table that would go along: for a dry run."""
        body = sql.SQL(
            "SELECT count(*) FROM (SELECT {columns} FROM {table} WHERE {matching}"
            " LIMIT %(limit)s) AS hk_doomed JOIN {child} AS hk_child ON {on}"
        ).format(
            columns=_names(child.foreign_key.parent_columns),
            table=self._facts.identifier,
            matching=self._matching(),
            child=child_table(child),
            on=on_keys(child),
        )
        return Statement("purge.count_children", body)

    def _matching(self) -> sql.Composable:
        return sql.SQL("{} AND {}").format(self._window, self._predicate.condition)

    def _pinned(self) -> sql.Composable:
        return _PINNED.format(row=identifier(self._facts.name))

    def _pinned_with_keepers(self) -> sql.Composable:
        """Pinned rows whose rows in keeping child tables are pinned as well: none can change now."""
        own, alias = identifier(self._facts.name), apart_from(self._facts.name, "hk_child")
        conditions = [self._pinned()]
        conditions += [
            sql.SQL(
                "NOT EXISTS (SELECT FROM {child} AS {alias} WHERE {on}"
                " AND {alias}.xmax <> pg_current_xact_id()::xid)"
            ).format(
                child=child_table(child), alias=identifier(alias), on=on_keys(child, own, alias)
            )
            for child in self._children
            if child.keeps
        ]
        conditions += [
            sql.SQL(
                "NOT EXISTS (SELECT FROM (SELECT {columns}) AS hk_own{way}"
                " WHERE hk_last.xmax <> pg_current_xact_id()::xid)"
            ).format(
                columns=sql.SQL(", ").join(
                    identifier(self._facts.name, column) for column in way[0].parent_columns
                ),
                way=way_down(way, "hk_own", "hk_last"),
            )
            for relative in self._predicate.relatives
            for way in relative.levels()
        ]
        return sql.SQL(" AND ").join(conditions)

    def _doomed_keys(self, child: Child, *, again: bool = False) -> sql.Composable:
        """Return the pinned rows' keys; `again` looks once more whether they still expire."""
        pinned = self._pinned()
        if again:
            pinned = sql.SQL("{} AND {}").format(
                self._pinned_with_keepers(), self._predicate.condition
            )
        return sql.SQL(
            "(SELECT {into}{columns} FROM {table} WHERE {window} AND {pinned}) AS hk_doomed"
        ).format(
            columns=_names(child.foreign_key.parent_columns),
            into=self._into_column,
            table=self._facts.identifier,
            window=self._window,
            pinned=pinned,
        )


def _names(columns: Sequence[str]) -> sql.Composable:
    return sql.SQL(", ").join(identifier(column) for column in columns)


def child_of(label: str) -> int | None:
    """Return which child's rows a statement's label counts; None for those of the table itself."""
    return int(label.removeprefix(CHILD_PREFIX)) if label.startswith(CHILD_PREFIX) else None


def child_table(child: Child) -> sql.Composable:
    """Return the child table; a foreign key does not reach what inherits from an ordinary one."""
    key = child.foreign_key
    name = identifier(key.child_schema, key.child)
    return name if key.child_kind == "p" else sql.SQL("ONLY {}").format(name)


def on_keys(
    child: Child, parent: sql.Composable = _DOOMED, alias: str = "hk_child"
) -> sql.Composable:
    pairs = zip(child.foreign_key.columns, child.foreign_key.parent_columns, strict=True)
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}.{}").format(identifier(alias, own), parent, identifier(column))
        for own, column in pairs
    )
