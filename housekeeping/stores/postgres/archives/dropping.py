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
from housekeeping.stores.postgres.archives.rows import Fingerprint
from housekeeping.stores.postgres.archives.unchanged import CHANGED, counted, lock_against_writers
from housekeeping.stores.postgres.blocking import BlockWatch
from housekeeping.stores.postgres.conditions import sentence, sqlstate
from housekeeping.stores.postgres.connection import guarded
from housekeeping.stores.postgres.hold_ledger import holds_now
from housekeeping.stores.postgres.statement import Statement, execute
from housekeeping.stores.postgres.window_ledger import WindowLedger, try_fence

# Counting 1 M rows took 0.1 s. Meanwhile only writers to the dated table wait, and there are none but
# us; who comes all the same is let through by the watch.
_COUNT_WITHIN = timedelta(minutes=30)
_PATIENCE = timedelta(seconds=1)
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

    def __init__(self, why: str, table: ArchivedTable) -> None:
        super().__init__(why)
        self.table = table
        """which holds a held row"""


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
    together: tuple[ArchivedTable, ...] = ()
    """the tables that go together and are still there: a hold on a row of one keeps them all"""

    def drop(self, table: ArchivedTable, expected: Fingerprint | None, number: int) -> int:
        """Drop a table; return the rows it held, which is what was counted under the lock.

        `expected`: what an export holds; anything else in the table now keeps it. `number`: of the
        window that records it.

        Raises Kept when the table has to stay, Busy when somebody holds the source's fence, and
        DBAPIError for a lock not got in time. The transaction is then rolled back.
        """
        watch = BlockWatch(self.policy.database_url, self.connection, _PATIENCE, self.objection)
        with (
            watch,
            watch.window(),
            guarded(self.connection, counting(self.policy.pace), any_plan=True),
        ):
            if not try_fence(self.connection, self.fence_oid):
                raise Busy
            holds_now(self.connection)  # and none is placed until this transaction is over
            lock_against_writers(self.connection, table.identifier)
            rows = self._require_same(table, expected)
            self._require_alone(table)
            for each in self.together or (table,):
                if (hold := held_by(self.connection, self.policy, each)) is not None:
                    raise Held(hold, each)
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
        found = counted(self.connection, table.identifier, hashed=expected is not None)
        require_complete(table.rows, found)
        if expected is not None and found != expected:
            raise Kept(CHANGED)
        return found.rows

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


def require_complete(rows: int, found: Fingerprint) -> None:
    """Raise Kept unless a table holds as many rows as were moved into it."""
    if found.rows != rows:
        raise Kept(
            f"it holds {found.rows:,} rows and the ledger says {rows:,}: rows were added or "
            "removed by somebody else"
        )
