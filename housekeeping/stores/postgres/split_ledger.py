"""A run that several workers share: what each of them has to know, and the ranges it is cut into."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.stores.postgres.statement import Statement, execute

# Each range numbers its windows from a beginning of its own; `run_window.number` is an int4.
WINDOWS_PER_SHARD = 2_000_000
MOST_SHARDS = 1_000
KEEP_SPLITS = timedelta(days=90)  # as long as the windows they explain

_WRITE = Statement(
    "split.write",
    # Only while our fence is the newest: an older attempt of the same run can't split it again.
    sql.SQL(
        """
        INSERT INTO housekeeping.split AS s
            (run_id, target, digest, cutoffs, planned_at, filenode, blocks, until)
        SELECT %(run_id)s::uuid, %(relation)s, %(digest)s, %(cutoffs)s::jsonb, %(planned_at)s,
               %(filenode)s, %(blocks)s, clock_timestamp() + %(budget)s
        WHERE EXISTS (SELECT FROM housekeeping.target
                      WHERE relation = %(relation)s AND fence = %(fence)s)
        ON CONFLICT (run_id) DO UPDATE SET
            digest = excluded.digest, cutoffs = excluded.cutoffs, planned_at = excluded.planned_at,
            filenode = excluded.filenode, blocks = excluded.blocks, until = excluded.until,
            closed_at = NULL
        """
    ),
)
_ABANDON_SHARDS = Statement(
    "split.abandon_shards",
    sql.SQL(
        """
        UPDATE housekeeping.shard SET claim = claim + 1, done_at = clock_timestamp()
        WHERE run_id = %(run_id)s::uuid AND done_at IS NULL
        """
    ),
)
_LAST_SHARD = Statement(
    "split.last_shard",
    sql.SQL(
        """
        SELECT coalesce(max(number), 0) FROM housekeeping.shard WHERE run_id = %(run_id)s::uuid
        """
    ),
)
_ADD_SHARDS = Statement(
    "split.add_shards",
    sql.SQL(
        """
        INSERT INTO housekeeping.shard (run_id, number, lower, upper, done_to, last_window)
        SELECT %(run_id)s::uuid, %(after)s + n, lower, upper, lower, (%(after)s + n) * %(stride)s
        FROM unnest(%(lower)s::bigint[], %(upper)s::bigint[]) WITH ORDINALITY r(lower, upper, n)
        """
    ),
)
_FIND = Statement(
    "split.find",
    sql.SQL(
        """
        SELECT p.target, p.digest, p.cutoffs, p.planned_at, p.filenode, p.blocks,
               p.until - clock_timestamp(), p.closed_at IS NULL AND t.run_id = p.run_id
        FROM housekeeping.split p JOIN housekeeping.target t ON t.relation = p.target
        WHERE p.run_id = %(run_id)s::uuid
        """
    ),
)
_RESUME = Statement(
    "split.resume",
    # Under another policy than before nobody goes on with a range he claimed under the old one.
    sql.SQL(
        """
        WITH ours AS (
            UPDATE housekeeping.split p SET
                digest = %(digest)s, cutoffs = %(cutoffs)s::jsonb,
                until = clock_timestamp() + %(budget)s, closed_at = NULL
            FROM housekeeping.split before
            WHERE p.run_id = %(run_id)s::uuid AND before.run_id = p.run_id
              AND EXISTS (SELECT FROM housekeeping.target
                          WHERE relation = p.target AND fence = %(fence)s)
            RETURNING before.digest <> %(digest)s AS changed)
        UPDATE housekeeping.shard s SET claim = claim + 1, claimed_by = NULL FROM ours
        WHERE ours.changed AND s.run_id = %(run_id)s::uuid AND s.done_at IS NULL
        """
    ),
)
_EXTEND = Statement(
    "split.extend",
    # From the end it was last cut to: once for every block, however many attempts there are.
    sql.SQL(
        """
        UPDATE housekeeping.split p SET blocks = %(blocks)s FROM housekeeping.split before
        WHERE p.run_id = %(run_id)s::uuid AND before.run_id = p.run_id AND p.closed_at IS NULL
          AND p.blocks < %(blocks)s
          AND EXISTS (SELECT FROM housekeeping.target WHERE relation = p.target AND fence = %(fence)s)
        RETURNING before.blocks
        """
    ),
)
_CLOSE = Statement(
    "split.close",
    sql.SQL(
        """
        UPDATE housekeeping.split SET closed_at = coalesce(closed_at, clock_timestamp())
        WHERE run_id = %(run_id)s::uuid RETURNING cardinality(workers)
        """
    ),
)
_STANDING = Statement(
    "split.standing",
    sql.SQL(
        """
        SELECT count(*) FILTER (WHERE done_at IS NULL), coalesce(sum(rows), 0),
               coalesce(sum(CASE WHEN done_at IS NULL THEN done_to ELSE upper END - lower), 0),
               coalesce(sum(upper - lower), 0)
        FROM housekeeping.shard WHERE run_id = %(run_id)s::uuid
        """
    ),
)
_LAST_ALONE = Statement(
    "split.last_window_alone",
    sql.SQL(
        """
        SELECT coalesce(max(number), 0) FROM housekeeping.run_window
        WHERE run_id = %(run_id)s::uuid AND number <= %(stride)s
        """
    ),
)
_PRUNE = Statement(
    "split.prune",
    sql.SQL("DELETE FROM housekeeping.split WHERE made_at < clock_timestamp() - %(keep)s"),
)


@dataclass(frozen=True, kw_only=True)
class Split:
    """A run cut into ranges, as every worker on it has to see it."""

    run_id: UUID
    relation: str
    digest: str
    """of the policy; who has been given another one keeps his hands off"""
    cutoffs: Mapping[str, datetime]
    planned_at: datetime
    """what `now` means to the policy's keepers, for every worker and attempt"""
    filenode: int
    blocks: int
    """of the table when it was cut"""
    time_left: timedelta
    is_open: bool
    """its run has not ended, and no newer run has taken the table over"""


@dataclass(frozen=True)
class Standing:
    """How far all workers together are."""

    unfinished: int
    rows: int
    blocks_done: int
    blocks: int

    @property
    def fraction(self) -> float:
        return self.blocks_done / max(1, self.blocks)


def find_split(connection: Connection, run_id: UUID) -> Split | None:
    """Return how a run was cut; None when it wasn't."""
    row = execute(connection, _FIND, run_id=str(run_id)).first()
    if row is None:
        return None
    relation, digest, cutoffs, planned_at, filenode, blocks, left, is_open = row
    return Split(
        run_id=run_id,
        relation=relation,
        digest=digest,
        cutoffs={reason: datetime.fromisoformat(stamp) for reason, stamp in cutoffs.items()},
        planned_at=planned_at,
        filenode=filenode,
        blocks=blocks,
        time_left=left,
        is_open=is_open,
    )


@dataclass(frozen=True)
class SplitLedger:
    """What the run that owns a split writes about it; each in the transaction that is open."""

    run_id: UUID
    relation: str
    fence: int

    def write(
        self,
        connection: Connection,
        *,
        digest: str,
        cutoffs: Mapping[str, datetime],
        planned_at: datetime,
        filenode: int,
        budget: timedelta,
        ranges: Sequence[tuple[int, int]],
    ) -> bool:
        """Cut the run into ranges of blocks, `(first, end)` each.

        Ranges an earlier attempt left unfinished are given up: the table was rewritten since. False
        when so many were given up that the numbers have run out, or a newer run has the fence.
        """
        after = int(execute(connection, _LAST_SHARD, run_id=str(self.run_id)).scalar_one())
        if after + len(ranges) >= MOST_SHARDS:
            return False
        written = execute(
            connection,
            _WRITE,
            run_id=str(self.run_id),
            relation=self.relation,
            fence=self.fence,
            digest=digest,
            cutoffs=_stamps(cutoffs),
            planned_at=planned_at,
            filenode=filenode,
            blocks=max(end for _, end in ranges),
            budget=budget,
        )
        if written.rowcount != 1:
            return False
        execute(connection, _ABANDON_SHARDS, run_id=str(self.run_id))
        self._add(connection, after, ranges)
        return True

    def resume(
        self,
        connection: Connection,
        digest: str,
        cutoffs: Mapping[str, datetime],
        budget: timedelta,
    ) -> None:
        """Open the split again for another attempt of the run, under its policy and cutoffs."""
        values = {"run_id": str(self.run_id), "fence": self.fence}
        told = _stamps(cutoffs)
        execute(connection, _RESUME, **values, digest=digest, cutoffs=told, budget=budget)

    def extend(self, connection: Connection, blocks: int) -> bool:
        """Add the blocks from the former end on as one more range; False where there are none."""
        values = {"run_id": str(self.run_id), "fence": self.fence}
        former = execute(connection, _EXTEND, **values, blocks=blocks).scalar()
        after = int(execute(connection, _LAST_SHARD, run_id=str(self.run_id)).scalar_one())
        if former is None or after + 1 >= MOST_SHARDS:
            return False
        self._add(connection, after, [(int(former), blocks)])
        return True

    def _add(self, connection: Connection, after: int, ranges: Sequence[tuple[int, int]]) -> None:
        execute(
            connection,
            _ADD_SHARDS,
            run_id=str(self.run_id),
            after=after,
            stride=WINDOWS_PER_SHARD,
            lower=[first for first, _ in ranges],
            upper=[end for _, end in ranges],
        )


def _stamps(cutoffs: Mapping[str, datetime]) -> str:
    return json.dumps({reason: cutoff.isoformat() for reason, cutoff in cutoffs.items()})


def standing_of(connection: Connection, run_id: UUID) -> Standing:
    """Return how far all workers on a run are; costs a look at its ranges, not at its windows."""
    unfinished, rows, done, blocks = execute(connection, _STANDING, run_id=str(run_id)).one()
    return Standing(unfinished, int(rows), int(done), int(blocks))


def close_split(connection: Connection, run_id: UUID) -> int:
    """End a split: no worker can commit another window of it. Return how many took part; 0 when
    the run was never split. Hold the table's fence meanwhile.
    """
    return int(execute(connection, _CLOSE, run_id=str(run_id)).scalar() or 0)


def last_window_alone(connection: Connection, run_id: UUID) -> int:
    """Return the number of a run's last window that belongs to none of its ranges."""
    values = {"run_id": str(run_id), "stride": WINDOWS_PER_SHARD}
    return int(execute(connection, _LAST_ALONE, **values).scalar_one())


def prune_splits(connection: Connection) -> None:
    """Forget splits, and their ranges, older than 90 days."""
    execute(connection, _PRUNE, keep=KEEP_SPLITS)
