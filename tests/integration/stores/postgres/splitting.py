"""A run cut into four ranges of ten blocks, and what workers do to it."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection

from housekeeping.policies.pace import Pace
from housekeeping.stores.postgres.catalog import TableFacts
from housekeeping.stores.postgres.connection import guarded
from housekeeping.stores.postgres.fencing import fenced
from housekeeping.stores.postgres.shard_ledger import Shard, ShardClaims, ShardLedger
from housekeeping.stores.postgres.split_ledger import (
    SplitLedger,
)

RUN = UUID("00000000-0000-0000-0000-000000000001")
NOW = datetime(2026, 3, 1, tzinfo=UTC)
PACE = Pace(lock_timeout=timedelta(seconds=5))
IMPATIENT = Pace(lock_timeout=timedelta(milliseconds=50))

Connect = Callable[[], Connection]


def cut(
    connection: Connection, facts: TableFacts, ledger: SplitLedger, digest: str = "same"
) -> bool:
    with fenced(connection, facts, PACE):
        return ledger.write(
            connection,
            digest=digest,
            cutoffs={"expired": NOW},
            planned_at=NOW,
            filenode=facts.filenode,
            budget=timedelta(minutes=5),
            ranges=[(0, 10), (10, 20), (20, 30), (30, 40)],
        )


def claim(
    connection: Connection, worker: str, digest: str = "same", gone: tuple[str, ...] = ()
) -> Shard | None:
    with guarded(connection, PACE):
        return ShardClaims(RUN, worker, digest).claim(connection, gone)


def claimed(connection: Connection, worker: str, gone: tuple[str, ...] = ()) -> Shard:
    shard = claim(connection, worker, gone=gone)
    assert shard is not None
    return shard


def commit_window(
    connection: Connection, facts: TableFacts, shard: Shard, done_to: int, rows: int = 7
) -> bool:
    """Commit one window as WindowStore does; False when somebody else's is under way."""
    ledger = ShardLedger(RUN, facts.label, facts.oid, shard)
    with guarded(connection, IMPATIENT):
        if not ledger.enter(connection):
            return False
        record(ledger, connection, shard.last_window + 1, done_to, rows)
    return True


def record(
    ledger: ShardLedger, connection: Connection, number: int, done_to: int, rows: int
) -> None:
    ledger.record(
        connection,
        number=number,
        walk="heap",
        bounds=("(0,0)", f"({done_to},0)"),
        counts=Counter({"expired": rows}),
        rows=rows,
        done_to=str(done_to),
    )
