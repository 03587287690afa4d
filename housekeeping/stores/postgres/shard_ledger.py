"""Claims on the ranges of a split run: one worker a range, proven anew in every window.

A worker that is gone loses its range to whoever raises the claim's number. It may not know: Redis
may have lied, or it slept. So each of its windows locks the range's row and compares the number,
and a window that is under way keeps the row, and with it the range, until it ends.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from uuid import UUID

from psycopg2 import sql
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from housekeeping.policies.errors import LeaseTaken, ShardTaken
from housekeeping.stores.postgres.conditions import Condition, condition_of
from housekeeping.stores.postgres.rewalking import walk_range_again
from housekeeping.stores.postgres.split_ledger import WINDOWS_PER_SHARD
from housekeeping.stores.postgres.statement import Statement, execute
from housekeeping.stores.postgres.window_ledger import WindowLedger, share_fence

_CLAIM = Statement(
    "shard.claim",
    # A row somebody has locked is a range with a window under way: passed over, whoever claims it.
    sql.SQL(
        """
        WITH free AS MATERIALIZED (
            SELECT s.run_id, s.number FROM housekeeping.shard s
            JOIN housekeeping.split p ON p.run_id = s.run_id
            JOIN housekeeping.target t ON t.relation = p.target AND t.run_id = p.run_id
            WHERE s.run_id = %(run_id)s::uuid AND s.done_at IS NULL AND p.closed_at IS NULL
              AND p.digest = %(digest)s
              AND (s.claimed_by IS NULL OR s.claimed_by = ANY(%(gone)s::text[]))
            ORDER BY s.claimed_by IS NOT NULL, s.number LIMIT 1
            FOR NO KEY UPDATE OF s SKIP LOCKED)
        UPDATE housekeeping.shard s
        SET claim = s.claim + 1, claimed_by = %(worker)s, claimed_at = clock_timestamp()
        FROM free WHERE s.run_id = free.run_id AND s.number = free.number
        RETURNING s.number, s.lower, s.upper, s.done_to, s.claim, s.last_window
        """
    ),
)
_JOIN = Statement(
    "shard.join",
    sql.SQL(
        """
        UPDATE housekeeping.split SET workers = workers || %(worker)s::text
        WHERE run_id = %(run_id)s::uuid AND NOT workers @> ARRAY[%(worker)s::text]
        """
    ),
)
_CLAIMANTS = Statement(
    "shard.claimants",
    sql.SQL(
        """
        SELECT DISTINCT claimed_by FROM housekeeping.shard
        WHERE run_id = %(run_id)s::uuid AND done_at IS NULL AND claimed_by <> %(worker)s
        """
    ),
)
_ENTER = Statement(
    "shard.enter",
    sql.SQL(
        """
        SELECT s.claim = %(claim)s AND s.done_at IS NULL,
               p.closed_at IS NULL AND t.run_id = p.run_id, t.fence
        FROM housekeeping.shard s
        JOIN housekeeping.split p ON p.run_id = s.run_id
        JOIN housekeeping.target t ON t.relation = p.target
        WHERE s.run_id = %(run_id)s::uuid AND s.number = %(number)s
        FOR NO KEY UPDATE OF s
        """
    ),
)
_ADVANCE = Statement(
    "shard.advance",
    sql.SQL(
        """
        UPDATE housekeeping.shard SET rows = rows + %(rows)s, last_window = %(window)s,
            done_to = coalesce(%(done_to)s, done_to)
        WHERE run_id = %(run_id)s::uuid AND number = %(number)s AND claim = %(claim)s
        """
    ),
)
_FINISH = Statement(
    "shard.finish",
    sql.SQL(
        """
        UPDATE housekeeping.shard SET done_at = clock_timestamp(), done_to = upper
        WHERE run_id = %(run_id)s::uuid AND number = %(number)s AND claim = %(claim)s
        """
    ),
)
_RELEASE = Statement(
    "shard.release",
    sql.SQL(
        """
        UPDATE housekeeping.shard SET claimed_by = NULL, claim = claim + 1
        WHERE run_id = %(run_id)s::uuid AND number = %(number)s AND claim = %(claim)s
        """
    ),
)


@dataclass(frozen=True)
class Shard:
    """A range of blocks one worker has claimed."""

    number: int
    lower: int
    upper: int
    """not included"""
    done_to: int
    """everything before this block is committed"""
    claim: int
    """raised by every claim; a window commits only while it is the one it was claimed with"""
    last_window: int
    """the number of the last window recorded in this range"""


@dataclass(frozen=True)
class ShardClaims:
    """What one worker does about the ranges of one run; each in the transaction that is open."""

    run_id: UUID
    worker: str
    digest: str

    def claim(self, connection: Connection, gone: Collection[str] = ()) -> Shard | None:
        """Claim a range nobody has, or one of a worker that is `gone`; None when there is none."""
        values = {"run_id": str(self.run_id), "worker": self.worker}
        row = execute(
            connection, _CLAIM, **values, digest=self.digest, gone=list(gone)
        ).one_or_none()
        if row is None:
            return None
        execute(connection, _JOIN, **values)
        shard = Shard(*row)
        if shard.claim > 1:
            windows = shard.number * WINDOWS_PER_SHARD, shard.last_window
            walk_range_again(connection, self.run_id, windows, shard.done_to)
        return shard

    def other_claimants(self, connection: Connection) -> list[str]:
        """Return the other workers that have unfinished ranges."""
        found = execute(
            connection, _CLAIMANTS, run_id=str(self.run_id), worker=self.worker
        ).scalars()
        return [str(worker) for worker in found]

    def finish(self, connection: Connection, shard: Shard) -> None:
        """Say that a range is done, unless somebody has taken it over."""
        execute(connection, _FINISH, **self._of(shard))

    def release(self, connection: Connection, shard: Shard) -> None:
        """Leave the rest of a range to whoever comes, unless somebody has taken it over."""
        execute(connection, _RELEASE, **self._of(shard))

    def _of(self, shard: Shard) -> dict[str, object]:
        return {"run_id": str(self.run_id), "number": shard.number, "claim": shard.claim}


class ShardLedger:
    """Records the windows of one claimed range; takes the place of a WindowLedger."""

    def __init__(self, run_id: UUID, relation: str, oid: int, shard: Shard) -> None:
        self._windows = WindowLedger(run_id, relation, 0, oid)
        self._shard = shard
        self._values = {"run_id": str(run_id), "number": shard.number, "claim": shard.claim}

    def enter(self, connection: Connection) -> bool:
        """Take what a window's transaction needs; False when somebody else has it just now.

        The table's lock is shared with other ranges of the run, the range's row is ours alone.

        Raises LeaseTaken when the run has ended or a newer one has the table, ShardTaken when
        another worker has the range.
        """
        if not share_fence(connection, self._windows.oid):
            return False
        try:
            row = execute(connection, _ENTER, **self._values).one_or_none()
        except DBAPIError as error:
            if condition_of(error) is Condition.CONTENDED:
                return False
            raise
        if row is None or not row[1]:
            raise LeaseTaken(target=self._windows.relation)
        if not row[0]:
            raise ShardTaken(number=self._shard.number, target=self._windows.relation)
        self._windows = replace(self._windows, fence=row[2])
        return True

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
        """Write a window, and how far its range is done, in the transaction that is open.

        `done_to`: a block. It is kept with the range: windows of several ranges lie mixed.

        Raises LeaseTaken, ShardTaken; the caller rolls back.
        """
        self._windows.record(
            connection,
            number=number,
            walk=walk,
            bounds=bounds,
            counts=counts,
            rows=rows,
            left_behind=left_behind,
            error=error,
        )
        at = None if done_to is None else int(done_to)
        advanced = execute(
            connection, _ADVANCE, **self._values, rows=rows, window=number, done_to=at
        )
        if advanced.rowcount != 1:
            raise ShardTaken(number=self._shard.number, target=self._windows.relation)
