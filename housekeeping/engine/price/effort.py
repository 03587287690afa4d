"""How long work takes: seconds by rows and pages, as they were measured.

Fitted to 40 runs of this engine over 30 thousand to a million rows (PostgreSQL 18, two cores, fsync
and full_page_writes on, the tables in the cache, a checkpoint just before), which it meets within a
factor of 1.5; tests/unit/engine/test_pricing.py holds them. What they rest on:

    rows   rows of 52 bytes 0.34 us each, of 168 bytes 0.62, of 1,024 bytes 2.0: the row itself is
           0.25, the rest is its page. Five more indexes cost nothing (0.56): a DELETE leaves
           their entries to VACUUM.
    pages  1,201 rows on a page each: 60 us a row, 300 thousand on every page: 0.8; a page that is
           changed and goes to the WAL as a whole is 12 us, one that is only read 1
    pins   rows that are locked and looked at again 2.9 us instead of 0.6
    keys   each foreign key 3.5 us a row, also without a single child row: its trigger looks. A
           child row 2 us, one that is updated (SET NULL) 3.5
    moves  rows that are archived 2.5 us more
    size   columns stored out of line are rows of another table: a row of 5.8 kB is four, 12 us

Another machine is another speed: see pricing.learned.
"""

from housekeeping.engine.price.forecasting import Stretch
from housekeeping.engine.price.work import Going, Work
from housekeeping.policies.pace import Pace
from housekeeping.stores.postgres.storage import Server, Storage

_ROW_SECONDS = 0.25e-6
_ENTRY_SECONDS = 0.1e-6  # found by an index
_PAGE_SECONDS = 12e-6
_UNLOGGED_PAGE_SECONDS = 4e-6  # full_page_writes off: assumed, not measured
_SCANNED_SECONDS = 1e-6
_PIN_SECONDS = 2e-6
_KEEPER_SECONDS = 0.5e-6
_KEY_SECONDS = 3.5e-6
_CHILD_SECONDS = 2e-6
_UPDATED_SECONDS = 3.5e-6
_MOVE_SECONDS = 2.5e-6
# Where windows end: 120 thousand entries took 40 ms on a heap in order, 0.2 s on one at random.
_PROBE_SECONDS = 0.15e-6
_PROBE_AT_RANDOM_SECONDS = 1.5e-6
# From storage, not measured here: 200 MB/s in order, a network disk's answer at random.
_STORED_SECONDS = 40e-6
_STORED_AT_RANDOM_SECONDS = 150e-6


def deleting(work: Work) -> float:
    """Return the seconds of everything that changes."""
    each = _ROW_SECONDS + work.keys * _KEY_SECONDS + work.keepers * _KEEPER_SECONDS
    each += (_PIN_SECONDS if work.pinned else 0.0) + (_ENTRY_SECONDS if work.by_index else 0.0)
    each += _MOVE_SECONDS if work.archived else 0.0
    at_random = 1 - work.order if work.by_index else 0.0
    seconds = work.rows * each + work.pages * _page(work.server, work.storage, at_random)
    seconds += _toast(work, work.storage, work.rows)
    return seconds + sum(_going(work, part) for part in work.going)


def _going(work: Work, part: Going) -> float:
    each = _UPDATED_SECONDS if part.updated else _CHILD_SECONDS
    each += _KEY_SECONDS if part.by_trigger else 0.0
    each += _MOVE_SECONDS if work.moves(part) else 0.0
    pages = work.pages_along(part) * _page(work.server, part.storage, 1.0)
    return part.rows * each + pages + _toast(work, part.storage, part.rows)


def _toast(work: Work, storage: Storage, rows: float) -> float:
    pieces, pages = storage.toast_of(rows)
    return pieces * _ROW_SECONDS + pages * _page(work.server, storage, 0.0)


def _page(server: Server, storage: Storage, at_random: float) -> float:
    """Return the seconds of a changed page, read from storage where the cache can't hold it."""
    changed = _PAGE_SECONDS if server.full_page_writes else _UNLOGGED_PAGE_SECONDS
    return changed + _missed(server, storage) * _stored(at_random)


def _missed(server: Server, storage: Storage) -> float:
    """Return the share of a table the cache can't hold."""
    size = storage.pages * server.block_size
    return max(0.0, 1 - server.cache_bytes / size) if size else 0.0


def _stored(at_random: float) -> float:
    return _STORED_SECONDS + at_random * (_STORED_AT_RANDOM_SECONDS - _STORED_SECONDS)


def along_index(work: Work) -> Stretch:
    """Return a walk along an index: what goes, and the entries and rows it passes in vain."""
    entries = max(work.entries, work.rows)
    passed = max(0.0, work.storage.pages_of(entries, work.below, work.order) - work.pages)
    read = _SCANNED_SECONDS + _missed(work.server, work.storage) * _stored(1 - work.order)
    seconds = deleting(work) + (entries - work.rows) * _ENTRY_SECONDS + passed * read
    return Stretch.over(entries, seconds, work.deleted_rows)


def along_heap(work: Work) -> tuple[Stretch, Stretch]:
    """Return a walk along the heap: pages where rows expired, and those that are only read."""
    storage = work.storage
    region = max(work.pages, storage.pages_of(work.below, work.below, work.order))
    read = _SCANNED_SECONDS + _missed(work.server, storage) * _stored(0.0)
    rest = max(0.0, storage.pages - region)
    seconds = deleting(work) + (region - work.pages) * read
    return Stretch.over(region, seconds, work.deleted_rows), Stretch.over(rest, rest * read, 0.0)


def probing(work: Work) -> float:
    """Return the seconds it takes to find where an index walk's windows end."""
    return work.entries * (_PROBE_SECONDS + _PROBE_AT_RANDOM_SECONDS * (1 - work.order))


def counting_seconds(work: Work, pace: Pace) -> float:
    """Return how long counting takes where nothing is in the cache, rests included."""
    if work.by_index:
        pages = work.storage.pages_of(work.entries, work.below, work.order)
        reading = pages * _stored(1 - work.order) + work.entries * _ENTRY_SECONDS
    else:
        reading = work.storage.pages * _STORED_SECONDS
    reading += work.rows * (_ROW_SECONDS + work.keepers * _KEEPER_SECONDS)
    for part in work.going:
        if not part.updated and not part.by_trigger:
            reading += part.rows * _CHILD_SECONDS
            reading += work.pages_along(part) * _STORED_AT_RANDOM_SECONDS
    return reading / pace.duty
