"""The windows of a run, in the database they happened in: committed with the rows they speak of."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.policies.errors import LeaseTaken
from housekeeping.stores.postgres.hold_ledger import HOLDS_LOCK
from housekeeping.stores.postgres.statement import Statement, execute

KEEP_WINDOWS = timedelta(days=90)  # totals live on in `run`; windows are for looking into one
_PRUNE_ROWS = 10_000
INTO_PREFIX = "into:"  # among a window's counts: rows by the dated table they were moved to

_TRY_LOCK = Statement(
    "fence.try_lock",
    # The table's oid under our own prefix: one batch at a time per table, whoever started it. The
    # other lock is shared by all batches, and taken alone while a hold is placed.
    sql.SQL(
        "SELECT pg_try_advisory_xact_lock((26731::bigint << 32) | %(oid)s::bigint)"
        " AND pg_try_advisory_xact_lock_shared(%(holds)s)"
    ),
)
_TRY_SHARED = Statement(
    "fence.try_shared",
    sql.SQL(
        "SELECT pg_try_advisory_xact_lock_shared((26731::bigint << 32) | %(oid)s::bigint)"
        " AND pg_try_advisory_xact_lock_shared(%(holds)s)"
    ),
)
_LOCK = Statement(
    "fence.lock",
    sql.SQL("SELECT pg_advisory_xact_lock((26731::bigint << 32) | %(oid)s::bigint)"),
)
_TAKE = Statement(
    "fence.take",
    sql.SQL(
        """
        INSERT INTO housekeeping.target AS t (relation, fence, run_id)
        VALUES (%(relation)s, 1, %(run_id)s::uuid)
        ON CONFLICT (relation) DO UPDATE SET
            fence = t.fence + 1, run_id = excluded.run_id, taken_at = clock_timestamp()
        RETURNING fence, sizes
        """
    ),
)
_RECORD = Statement(
    "ledger.window",
    sql.SQL(
        """
        INSERT INTO housekeeping.run_window
            (run_id, number, target, walk, lower, upper, done_to, fence, rows, counts, left_behind,
             error)
        SELECT %(run_id)s::uuid, %(number)s, %(target)s, %(walk)s, %(lower)s, %(upper)s, %(done_to)s,
               %(fence)s, %(rows)s, %(counts)s::jsonb, %(left_behind)s, %(error)s
        WHERE EXISTS (SELECT FROM housekeeping.target
                      WHERE relation = %(relation)s AND fence = %(fence)s)
        """
    ),
)
_TOTALS = Statement(
    "ledger.totals",
    sql.SQL(
        """
        SELECT c.key, sum(c.value::bigint) FROM housekeeping.run_window w,
               jsonb_each_text(w.counts) c
        WHERE w.run_id = %(run_id)s::uuid GROUP BY c.key
        """
    ),
)
_SUMMARY = Statement(
    "ledger.summary",
    sql.SQL(
        """
        SELECT count(*), coalesce(max(number), 0), coalesce(sum(rows), 0),
               coalesce(sum(left_behind), 0)
        FROM housekeeping.run_window WHERE run_id = %(run_id)s::uuid
        """
    ),
)
_LAST = Statement(
    "ledger.last_window",
    sql.SQL(
        """
        SELECT walk, done_to FROM housekeeping.run_window
        WHERE run_id = %(run_id)s::uuid AND target = %(target)s AND done_to IS NOT NULL
        ORDER BY number DESC LIMIT 1
        """
    ),
)
_BY_TARGET = Statement(
    "ledger.by_target",
    sql.SQL(
        """
        SELECT target, walk, sum(rows), sum(left_behind), max(error)
        FROM housekeeping.run_window WHERE run_id = %(run_id)s::uuid
        GROUP BY target, walk ORDER BY min(number)
        """
    ),
)
_LOST = Statement(
    "ledger.rows_lost",
    sql.SQL(
        """
        SELECT c.oid, sum(w.rows)::bigint
        FROM housekeeping.run_window w JOIN pg_class c ON c.relkind = 'r'
        JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname || '.' || c.relname = w.target
        WHERE w.run_id = %(run_id)s::uuid AND w.walk <> %(but)s GROUP BY c.oid
        """
    ),
)
_REMEMBER = Statement(
    "ledger.remember_sizes",
    sql.SQL(
        """
        UPDATE housekeeping.target SET sizes = sizes || %(sizes)s::jsonb
        WHERE relation = %(relation)s AND fence = %(fence)s
        """
    ),
)
_SIZES = Statement(
    "ledger.remembered_sizes",
    sql.SQL("SELECT sizes FROM housekeeping.target WHERE relation = %(relation)s"),
)
_PRUNE = Statement(
    "ledger.prune",
    sql.SQL(
        """
        DELETE FROM housekeeping.run_window WHERE ctid = ANY(ARRAY(
            SELECT ctid FROM housekeeping.run_window
            WHERE committed_at < clock_timestamp() - %(keep)s LIMIT %(rows)s
            FOR UPDATE SKIP LOCKED))
        """
    ),
)


@dataclass(frozen=True)
class Summary:
    """What a run has committed so far."""

    windows: int
    last_number: int
    rows: int
    left_behind: int
    counts: Mapping[str, int]


def share_fence(connection: Connection, oid: int) -> bool:
    """Take the table's advisory lock beside others that share it; False when one doesn't, or when
    somebody is placing a hold.
    """
    return bool(execute(connection, _TRY_SHARED, oid=oid, holds=HOLDS_LOCK).scalar_one())


def try_fence(connection: Connection, oid: int) -> bool:
    """Take the table's advisory lock for this transaction; False when another batch holds it, or
    when somebody is placing a hold.
    """
    return bool(execute(connection, _TRY_LOCK, oid=oid, holds=HOLDS_LOCK).scalar_one())


def wait_for_fence(connection: Connection, oid: int) -> None:
    """Take the table's advisory lock for this transaction, after those who asked before."""
    execute(connection, _LOCK, oid=oid)


def take_fence(connection: Connection, relation: str, run_id: UUID) -> tuple[int, dict[str, int]]:
    """Become the run that may write to a table; return our fence number and remembered sizes.

    A run with an older number can't commit another window from here on, whatever Redis told it.
    """
    fence, sizes = execute(connection, _TAKE, relation=relation, run_id=str(run_id)).one()
    return int(fence), _sizes(sizes)


def remembered_sizes(connection: Connection, relation: str) -> dict[str, int]:
    """Return the window sizes former runs on a table ended with, by walk; reads only."""
    return _sizes(execute(connection, _SIZES, relation=relation).scalar() or {})


def _sizes(stored: Mapping[str, Any]) -> dict[str, int]:
    return {str(walk): int(size) for walk, size in stored.items()}


@dataclass(frozen=True)
class WindowLedger:
    """Records the windows of one run on one table."""

    run_id: UUID
    relation: str
    fence: int
    oid: int
    """of the table: one batch at a time on it, whoever started it"""
    part: str | None = None
    """the partition its windows are of"""

    @property
    def target(self) -> str:
        """Return the table a window speaks of."""
        return self.part or self.relation

    def enter(self, connection: Connection) -> bool:
        """Take what a window's transaction needs; False when another session's is under way."""
        return try_fence(connection, self.oid)

    def record(
        self,
        connection: Connection,
        *,
        number: int,
        walk: str,
        bounds: tuple[str | None, str | None],
        counts: Counter[str],
        rows: int,
        done_to: str | None = None,
        left_behind: int = 0,
        error: str | None = None,
    ) -> None:
        """Write a window in the transaction that is open.

        `done_to`: everything of the walk up to here is done; where a later attempt may go on.

        Raises LeaseTaken when a newer run has taken the fence; the caller rolls back.
        """
        result = execute(
            connection,
            _RECORD,
            run_id=str(self.run_id),
            number=number,
            target=self.target,
            relation=self.relation,
            walk=walk,
            lower=bounds[0],
            upper=bounds[1],
            done_to=done_to,
            fence=self.fence,
            rows=rows,
            counts=json.dumps({label: count for label, count in counts.items() if count}),
            left_behind=left_behind,
            error=error,
        )
        if result.rowcount != 1:
            raise LeaseTaken(target=self.relation)

    def summary(self, connection: Connection) -> Summary:
        """Return the sums over this run's committed windows."""
        return summary_of(connection, self.run_id)

    def done_to(self, connection: Connection) -> tuple[str, str] | None:
        """Return the walk and the place in it up to which everything is committed."""
        row = execute(connection, _LAST, run_id=str(self.run_id), target=self.target).first()
        return None if row is None else (row[0], row[1])

    def remember_sizes(self, connection: Connection, sizes: Mapping[str, int]) -> None:
        """Keep the window sizes that fitted, for the next run."""
        values = json.dumps(dict(sizes))
        execute(connection, _REMEMBER, relation=self.relation, fence=self.fence, sizes=values)


def summary_of(connection: Connection, run_id: UUID) -> Summary:
    """Return the sums over a run's committed windows: the only source of totals."""
    windows, last, rows, left = execute(connection, _SUMMARY, run_id=str(run_id)).one()
    counts = execute(connection, _TOTALS, run_id=str(run_id)).all()
    return Summary(windows, last, int(rows), int(left), {k: int(v) for k, v in counts})


@dataclass(frozen=True)
class WalkSummary:
    """What a run has committed on one table by one walk."""

    target: str
    walk: str
    rows: int
    left_behind: int
    error: str | None
    """one of them, where something stayed"""


def summaries_by_target(connection: Connection, run_id: UUID) -> list[WalkSummary]:
    """Return a run's sums apart, for a run on several partitions."""
    return [
        WalkSummary(row[0], row[1], int(row[2]), int(row[3]), row[4])
        for row in execute(connection, _BY_TARGET, run_id=str(run_id))
    ]


def rows_lost(connection: Connection, run_id: str, but: str) -> dict[int, int]:
    """Return how many rows a run took out of each table by its oid, by any walk `but` one."""
    return {row[0]: row[1] for row in execute(connection, _LOST, run_id=run_id, but=but)}


def prune_windows(connection: Connection) -> None:
    """Forget windows older than 90 days, 10,000 at a time."""
    execute(connection, _PRUNE, keep=KEEP_WINDOWS, rows=_PRUNE_ROWS)
