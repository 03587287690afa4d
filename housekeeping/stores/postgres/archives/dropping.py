"""A dated table goes: counted, found complete and dropped in one transaction, the ledger with it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

from psycopg2 import sql
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from housekeeping.policies.pace import Pace
from housekeeping.policies.policy import Policy
from housekeeping.stores.postgres.archives.held import held_by
from housekeeping.stores.postgres.archives.known import ArchivedTable, dependents, known_tables
from housekeeping.stores.postgres.archives.rows import (
    Fingerprint,
    fingerprint,
    write_canonical_text,
)
from housekeeping.stores.postgres.blocking import BlockWatch
from housekeeping.stores.postgres.conditions import sentence, sqlstate
from housekeeping.stores.postgres.connection import guarded
from housekeeping.stores.postgres.hold_ledger import holds_now
from housekeeping.stores.postgres.statement import Statement, execute
from housekeeping.stores.postgres.window_ledger import WindowLedger, try_fence

# Counting 1 M rows took 0.1 s. Meanwhile only writers to the dated table wait, and there are none but
# us; who comes all the same is let through by the watch.
_COUNT_WITHIN = timedelta(minutes=30)
_PATIENCE_SECONDS = 1.0
_DEPENDED_ON = "2BP01"

_LOCK = Statement("archives.lock_ledger", sql.SQL(
    "SELECT rows FROM housekeeping.archive_table"
    " WHERE relation = %(relation)s AND dropped_at IS NULL FOR UPDATE"
))  # fmt: skip
_DROPPED = Statement("archives.dropped", sql.SQL(
    "UPDATE housekeeping.archive_table SET dropped_at = clock_timestamp()"
    " WHERE relation = %(relation)s"
))  # fmt: skip


class Kept(Exception):
    """A dated table has to stay. `why` says so for people."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Held(Kept):
    """A hold keeps it: it is not for us to go."""


class Busy(Exception):
    """Somebody is at the table or at its source; later it may go."""


@dataclass(frozen=True)
class Dropping:
    """Drops dated tables of one source, each in a transaction of its own."""

    connection: Connection
    policy: Policy
    ledger: WindowLedger
    fence_oid: int
    """whose advisory lock an archive run's transactions hold: the source table's"""
    objection: Callable[[], object]
    """asked while the rows are counted"""

    def drop(self, table: ArchivedTable, expected: Fingerprint | None, number: int) -> int:
        """Drop a table; return the rows it held, which is what was counted under the lock.

        `expected`: what an export holds; anything else in the table now keeps it. `number`: of the
        window that records it.

        Raises Kept when the table has to stay, Busy when somebody holds the source's fence, and
        DBAPIError for a lock not got in time. The transaction is then rolled back.
        """
        watch = BlockWatch(
            self.policy.database_url, self.connection, _PATIENCE_SECONDS, self.objection
        )
        with watch, guarded(self.connection, counting(self.policy.pace), any_plan=True):
            if not try_fence(self.connection, self.fence_oid):
                raise Busy
            holds_now(self.connection)  # and none is placed until this transaction is over
            self._try_lock(table)
            # Readers go on reading; a writer would make the count untrue.
            self._lock(table, "SHARE")
            rows = self._require_same(table, expected)
            self._require_alone(table)
            if (hold := held_by(self.connection, self.policy, table)) is not None:
                raise Held(hold)
            self._drop(table)
            execute(self.connection, _DROPPED, relation=table.relation)
            self.ledger.record(
                self.connection,
                number=number,
                walk="drop",
                bounds=(table.relation, None),
                counts=Counter({"tables_dropped": 1, "rows_dropped": rows}),
                rows=1,
            )
        return rows

    def _try_lock(self, table: ArchivedTable) -> None:
        """Find out at once whether the drop's lock can be had, before the rows are counted for it."""
        attempt = self.connection.begin_nested()
        try:
            self._lock(table, "ACCESS EXCLUSIVE")
        finally:
            attempt.rollback()

    def _lock(self, table: ArchivedTable, mode: str) -> None:
        body = sql.SQL("LOCK TABLE {} IN {} MODE").format(table.identifier, sql.SQL(mode))
        execute(self.connection, Statement("archives.lock", body))

    def _require_same(self, table: ArchivedTable, expected: Fingerprint | None) -> int:
        """Look again, now that nobody can change it: the table, the ledger's row, and the rows."""
        now = [
            t
            for t in known_tables(self.connection, [table.main_source])
            if t.relation == table.relation
        ]
        if not now or now[0].oids != table.oids:
            raise Kept("another table has taken its name")
        rows = execute(self.connection, _LOCK, relation=table.relation).scalar()
        if rows != table.rows:
            raise Kept("an archive run has changed it since we looked")
        counted = self._counted(table, hashed=expected is not None)
        require_complete(table, counted)
        if expected is not None and counted != expected:
            raise Kept("its rows were changed after they had been exported")
        return counted.rows

    def _counted(self, table: ArchivedTable, *, hashed: bool) -> Fingerprint:
        if not hashed:
            return fingerprint(self.connection, table.identifier)
        passing = self.connection.begin_nested()
        try:
            write_canonical_text(self.connection)
            return fingerprint(self.connection, table.identifier, hashed=True)
        finally:
            passing.rollback()  # takes the settings back

    def _require_alone(self, table: ArchivedTable) -> None:
        if depending := dependents(self.connection, table.oid):
            raise Kept(f"it is depended on by {', '.join(depending)}")

    def _drop(self, table: ArchivedTable) -> None:
        body = sql.SQL("DROP TABLE {}").format(table.identifier)
        try:
            with self.connection.begin_nested():
                execute(self.connection, Statement("archives.drop", body))
        except DBAPIError as error:
            if sqlstate(error) != _DEPENDED_ON:
                raise
            raise Kept(sentence(error)) from error


def counting(pace: Pace) -> Pace:
    """Return a pace with the same lock_timeout, and time enough to count a table."""
    return replace(pace, batch_target=_COUNT_WITHIN / 4)  # a statement may take four targets


def require_complete(table: ArchivedTable, counted: Fingerprint) -> None:
    """Raise Kept unless a table holds as many rows as were moved into it."""
    if counted.rows != table.rows:
        raise Kept(
            f"it holds {counted.rows:,} rows and the ledger says {table.rows:,}: rows were added or "
            "removed by somebody else"
        )
