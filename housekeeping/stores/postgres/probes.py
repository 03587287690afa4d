"""Where a window ends: found in the index alone, so the cost follows the window, not the table."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.policies.pace import Pace
from housekeeping.stores.postgres.catalog import TableFacts
from housekeeping.stores.postgres.connection import guarded
from housekeeping.stores.postgres.predicate import Predicate
from housekeeping.stores.postgres.ranges import HeapRange, Key, KeyRange, Tid
from housekeeping.stores.postgres.statement import Statement, execute, identifier

_PATIENCE = Pace(lock_timeout=timedelta(seconds=1))


_BLOCKS = Statement(
    "probe.blocks",
    sql.SQL("SELECT pg_relation_size(%(oid)s) / current_setting('block_size')::int"),
)


def blocks_now(connection: Connection, facts: TableFacts) -> int:
    """Return how many blocks a table has by now."""
    with probing(connection):
        return int(execute(connection, _BLOCKS, oid=facts.oid).scalar_one())


@contextmanager
def probing(connection: Connection) -> Iterator[None]:
    """Open a reading transaction for probes, in which no plan but an index's may be chosen."""
    with guarded(connection, _PATIENCE, reading=True):
        yield


@dataclass(frozen=True)
class KeyProbe:
    """Asks an index about keys below a cutoff."""

    facts: TableFacts
    key: Key
    cutoff: object

    def next_range(self, connection: Connection, lower: str | None, rows: int) -> KeyRange | None:
        """Return the range of the next `rows` index entries after `lower`; None at the end."""
        after: sql.Composable = sql.SQL("")
        values = {**self.key.values, "cutoff": self.cutoff, "rows": rows}
        if lower is not None:
            after = sql.SQL("{} > {} AND ").format(self.key.expression, self.key.bound("lower"))
            values["lower"] = lower
        body = sql.SQL(
            """
            SELECT count(*), max(hk_key)::text FROM (
                SELECT {key} AS hk_key FROM {table} WHERE {equality}{after}{key} < %(cutoff)s
                ORDER BY {key} LIMIT %(rows)s) AS hk_head
            """
        ).format(
            key=self.key.expression,
            table=self.facts.identifier,
            equality=self.key.equality,
            after=after,
        )
        count, upper = execute(connection, Statement("probe.window_end", body), **values).one()
        if not count:
            return None
        return KeyRange(self.key, lower, upper, upper_included=True, rows=count)

    def tie_exceeds(self, connection: Connection, at: str, rows: int) -> bool:
        """Say whether more than `rows` entries share one key: a bulk load in one transaction."""
        body = sql.SQL(
            "SELECT FROM {table} WHERE {equality}{key} = {at} OFFSET %(rows)s LIMIT 1"
        ).format(
            key=self.key.expression,
            table=self.facts.identifier,
            equality=self.key.equality,
            at=self.key.bound("at"),
        )
        statement = Statement("probe.tie", body)
        result = execute(connection, statement, **self.key.values, at=at, rows=rows)
        return result.first() is not None

    def heap_span(self, connection: Connection, of: KeyRange) -> HeapRange | None:
        """Return the stretch of the heap a range's rows lie in."""
        return self._span(connection, of.condition(self.facts), of.values)

    def tie_span(self, connection: Connection, at: str) -> HeapRange | None:
        """Return the stretch of the heap the rows with one key lie in."""
        condition = sql.SQL("{equality}{key} = {at}").format(
            equality=self.key.equality, key=self.key.expression, at=self.key.bound("at")
        )
        return self._span(connection, condition, {**self.key.values, "at": at})

    def _span(
        self, connection: Connection, condition: sql.Composable, values: Mapping[str, Any]
    ) -> HeapRange | None:
        body = sql.SQL(
            "SELECT min({row})::text, max({row})::text FROM {table} WHERE {condition}"
        ).format(
            row=identifier(self.facts.name, "ctid"),
            table=self.facts.identifier,
            condition=condition,
        )
        first, last = execute(connection, Statement("probe.heap_span", body), **values).one()
        if first is None:
            return None
        end = Tid.parse(last)
        return HeapRange(Tid.parse(first), Tid(end.block, end.pointer + 1))

    def oldest(self, connection: Connection, predicate: Predicate) -> str | None:
        """Return the smallest key that still expires, as text: the head of the backlog."""
        body = sql.SQL(
            """
            SELECT {key}::text FROM {table}
            WHERE {equality}{key} < %(cutoff)s AND {condition} ORDER BY {key} LIMIT 1
            """
        ).format(
            key=self.key.expression,
            table=self.facts.identifier,
            equality=self.key.equality,
            condition=predicate.condition,
        )
        values = {**self.key.values, **predicate.values, "cutoff": self.cutoff}
        oldest: str | None = execute(connection, Statement("probe.oldest", body), **values).scalar()
        return oldest
