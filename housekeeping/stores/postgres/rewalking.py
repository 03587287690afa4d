"""Windows of an interrupted run that are walked again: what stayed in them is told by those that follow.

Their rows went once, and count. A row that stayed is met again: counted twice, or counted although it
has gone by then, it would fail a run that did everything.
"""

from uuid import UUID

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.stores.postgres.statement import Statement, execute

_FORGET = Statement(
    "ledger.forget_left",
    sql.SQL(
        """
        UPDATE housekeeping.run_window SET left_behind = 0
        WHERE run_id = %(run_id)s::uuid AND target = %(target)s AND walk <> %(but)s
          AND left_behind > 0 AND (%(all)s OR number > (
              SELECT coalesce(max(number), 0) FROM housekeeping.run_window
              WHERE run_id = %(run_id)s::uuid AND target = %(target)s AND done_to IS NOT NULL))
        """
    ),
)
_FORGET_IN_RANGE = Statement(
    "shard.forget_left",
    sql.SQL(
        """
        UPDATE housekeeping.run_window SET left_behind = 0
        WHERE run_id = %(run_id)s::uuid AND left_behind > 0
          AND number > %(first)s AND number <= %(last)s
          AND CASE WHEN walk = 'heap' THEN (lower::point)[0] >= %(done_to)s END
        """
    ),
)


_FORGET_STEP = Statement(
    "ledger.forget_step",
    sql.SQL(
        """
        UPDATE housekeeping.run_window SET left_behind = 0
        WHERE run_id = %(run_id)s::uuid AND target = %(target)s AND walk = %(walk)s
          AND left_behind > 0
        """
    ),
)


def step_done(connection: Connection, run_id: UUID, target: str, walk: str) -> None:
    """Forget what an earlier attempt of a run left of a whole partition, which is done now."""
    execute(connection, _FORGET_STEP, run_id=str(run_id), target=target, walk=walk)


def walk_again(connection: Connection, run_id: UUID, target: str, *, whole: bool, but: str) -> None:
    """Forget what stayed in a table's windows after the last place that is done, or in all of them.

    `but`: the walk whose windows are no stretch of a table.
    """
    values = {"run_id": str(run_id), "target": target, "all": whole, "but": but}
    execute(connection, _FORGET, **values)


def walk_range_again(
    connection: Connection, run_id: UUID, windows: tuple[int, int], done_to: int
) -> None:
    """Forget what stayed in a range's windows from a block on.

    `windows`: the numbers before its first one, and of its last one.
    """
    first, last = windows
    values = {"run_id": str(run_id), "first": first, "last": last, "done_to": done_to}
    execute(connection, _FORGET_IN_RANGE, **values)
