"""What a run will cost: seconds, WAL, dead rows. A model of what was measured; knows no database.

Seconds are effort.py's. WAL, measured on the same runs, a byte figure each row:

    52 bytes wide 109, 168 bytes 222, 1,024 bytes 1,080: 56 for the deletion, and the row's share of
    its page, which goes to the WAL as a whole when it changes first after a checkpoint. Rows that
    lie on a page each so take 8,272, half of all rows on every page 387. A locked row 56 more; a
    child row as any other (861 for a row with three, where the model says 777); one that is updated
    (SET NULL) 361, with its index entry; a row of 5.8 kB, most of it out of line, 6,228; a row of
    165 bytes that is archived 507.

benchmarks/price.py prints predicted against actual: WAL within 10 %, seconds within a factor of two
also while others keep the machine busy.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from housekeeping.engine.price.effort import along_heap, along_index, probing
from housekeeping.engine.price.forecasting import Forecast, forecast
from housekeeping.engine.price.work import Work
from housekeeping.policies.pace import Pace
from housekeeping.stores.postgres.emptying import CHILD_ROWS
from housekeeping.stores.postgres.storage import Storage

_BEGIN_SECONDS = 0.03  # preflight, lease, the ledger's row, the plan
_DELETE_BYTES = 56  # XLOG_HEAP_DELETE, aligned
_PIN_BYTES = 56  # XLOG_HEAP_LOCK
_UPDATE_BYTES = 200  # both versions' headers, an entry in the foreign key's index
_MOVE_BYTES = (
    120  # beside the row: the insert's own, two columns of ours, an entry in the key's index
)
_WINDOW_BYTES = 600  # the window's row in the ledger, its index entries, the commit

# Autovacuum waits for a fifth of the table by default; a purge leaves its dead rows in one place,
# at the old end of the index where the next probes begin.
_VACUUM_ROWS = 50_000
_VACUUM_SHARE = 0.05

_LEAST_FACTOR, _MOST_FACTOR = 0.1, 20.0


@dataclass(frozen=True, kw_only=True)
class Price:
    """What a run is predicted to cost."""

    seconds: float
    """from start to end, rests included"""
    worked_seconds: float
    """in transactions that delete"""
    rest_seconds: float
    batches: int
    wal_bytes: int
    pages: int
    """of all tables, changed"""
    reusable_bytes: int
    """for new rows of the same tables after a VACUUM; nothing goes back to the disk"""


def price(work: Work, pace: Pace, size: int | None = None, factor: float = 1.0) -> Price:
    """Return what a run will cost.

    `size`: the window a former run ended with, in the walk's units. `factor`: how much slower than
    the model this server was, see `learned`.
    """
    windows = _forecast(work, pace, size, factor)
    begin = (_BEGIN_SECONDS + (probing(work) if work.by_index else 0.0)) * factor
    block = work.server.block_size
    freed = work.storage.bytes_of(work.rows, block)
    freed += sum(part.storage.bytes_of(part.rows, block) for part in work.going if not part.updated)
    return Price(
        seconds=begin + windows.worked_seconds + windows.rest_seconds,
        worked_seconds=windows.worked_seconds,
        rest_seconds=windows.rest_seconds,
        batches=windows.batches,
        wal_bytes=round(_wal(work) + windows.batches * _WINDOW_BYTES),
        pages=round(work.pages + sum(work.pages_along(part) for part in work.going)),
        reusable_bytes=round(freed),
    )


def vacuum_advised(dead: float, rows: int) -> bool:
    """Say whether so many dead rows are worth a VACUUM of their own."""
    return dead > _VACUUM_ROWS and dead > _VACUUM_SHARE * rows


def learned(runs: Sequence[tuple[int, float]], work: Work, pace: Pace) -> float:
    """Return how much slower than the model this policy's former runs were; 1 where there are none.

    `runs`: rows and seconds worked of each; they are priced on the table as it is now.
    """
    measured = sum(seconds for _, seconds in runs)
    modelled = sum(_forecast(work.scaled(rows), pace, None, 1.0).worked_seconds for rows, _ in runs)
    if not modelled or not measured:
        return 1.0
    return min(_MOST_FACTOR, max(_LEAST_FACTOR, measured / modelled))


def _forecast(work: Work, pace: Pace, size: int | None, factor: float) -> Forecast:
    stretches = (along_index(work),) if work.by_index else along_heap(work)
    rows_per_unit = 1.0 if work.by_index else work.storage.rows_per_page
    if size is None:
        size = int(pace.first_window_rows / rows_per_unit)
    children = [p.rows for p in work.going if not (p.updated or p.by_trigger)]
    most = max(children, default=0.0)
    ceiling = max(1, int(CHILD_ROWS * stretches[0].units / most)) if most else None
    slowed = [stretch.slowed(factor) for stretch in stretches]
    return forecast(slowed, rows_per_unit, pace, size, ceiling)


def _moved(storage: Storage, rows: float, block_size: int) -> float:
    """Return the WAL of rows that arrive: they are written whole, into pages nobody has to save."""
    return rows * _MOVE_BYTES + storage.bytes_of(rows, block_size)


def _wal(work: Work) -> float:
    block = work.server.block_size
    each = _DELETE_BYTES + (_PIN_BYTES if work.pinned else 0)
    old_row = work.storage.row_bytes if work.storage.whole_row_logged else 0.0
    pieces, toast_pages = work.storage.toast_of(work.rows)
    logged = work.rows * (each + old_row) + pieces * _DELETE_BYTES
    pages = work.pages + toast_pages
    if work.archived:
        logged += _moved(work.storage, work.rows, block)
    for part in work.going:
        pieces, toast_pages = part.storage.toast_of(part.rows)
        pages += work.pages_along(part)
        if part.updated:
            logged += part.rows * (_UPDATE_BYTES + 2 * part.storage.row_bytes)
            continue
        pages += toast_pages
        logged += (part.rows + pieces) * _DELETE_BYTES
        if work.moves(part):
            logged += _moved(part.storage, part.rows, block)
    return logged + pages * work.server.page_bytes
