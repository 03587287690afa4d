"""What tables take on disk, and the server's settings that make changing them dearer."""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.stores.postgres.statement import Statement, execute

_ROW_OVERHEAD = 28  # tuple header of 23 bytes, aligned, and a line pointer of 4
_WAL_COMPRESSED_SHARE = 0.5  # assumed: depends on what rows hold

_SERVER = Statement(
    "storage.server",
    sql.SQL(
        """
        SELECT current_setting('block_size')::int, current_setting('full_page_writes')::bool,
               current_setting('wal_compression') <> 'off',
               pg_size_bytes(current_setting('effective_cache_size'))
        """
    ),
)
_STORAGE = Statement(
    "storage.table",
    sql.SQL(
        """
        SELECT c.reltuples, c.relpages, pg_relation_size(c.oid), current_setting('block_size')::int,
               -- what the planner takes a row for that was never analyzed
               (SELECT sum(CASE WHEN attlen > 0 THEN attlen ELSE 32 END) FROM pg_attribute
                WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped),
               (SELECT sum(s.avg_width * (1 - s.null_frac))
                FROM pg_stats s JOIN pg_namespace n ON n.nspname = s.schemaname
                WHERE n.oid = c.relnamespace AND s.tablename = c.relname AND NOT s.inherited),
               coalesce(t.reltuples, 0),
               coalesce(pg_relation_size(t.oid), 0) / current_setting('block_size')::int,
               pg_stat_get_dead_tuples(c.oid),
               c.relreplident = 'f' AND current_setting('wal_level') = 'logical'
        FROM pg_class c LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
        WHERE c.oid = %(oid)s
        """
    ),
)
_PARTITIONS = Statement(
    "storage.partitions",
    sql.SQL(
        "SELECT relid::oid FROM pg_partition_tree(%(oid)s::oid::regclass)"
        " WHERE isleaf AND relid <> %(oid)s"
    ),
)
_NULL_SHARE = Statement(
    "storage.null_share",
    sql.SQL(
        """
        SELECT max(s.null_frac) FROM pg_stats s
        JOIN pg_class c ON c.relname = s.tablename AND c.relnamespace = s.schemaname::regnamespace
        WHERE c.oid = %(oid)s AND s.attname = ANY(%(columns)s)
        """
    ),
)


@dataclass(frozen=True, kw_only=True)
class Server:
    """What of a server's settings makes a change dearer."""

    block_size: int = 8192
    full_page_writes: bool = True
    wal_compression: bool = False
    cache_bytes: float = float(4 << 30)
    """effective_cache_size: a table larger than that is read from storage"""

    @property
    def page_bytes(self) -> float:
        """WAL of a page's first change after a checkpoint: the page as a whole."""
        if not self.full_page_writes:
            return 0.0
        return self.block_size * (_WAL_COMPRESSED_SHARE if self.wal_compression else 1.0)


@dataclass(frozen=True, kw_only=True)
class Storage:
    """What a table takes on disk, by its statistics."""

    rows: int
    pages: int
    row_bytes: float
    """in the heap, on average, header and line pointer included"""
    analyzed: bool = True
    """false: it has no statistics yet, and `rows` is the planner's guess by its size"""
    toast_rows: int = 0
    """pieces of columns stored out of line"""
    toast_pages: int = 0
    dead_rows: int = 0
    whole_row_logged: bool = False
    """REPLICA IDENTITY FULL under wal_level = logical: the WAL holds the old row"""

    @property
    def rows_per_page(self) -> float:
        return max(1.0, self.rows / max(1, self.pages))

    def pages_of(self, rows: float, among: float, order: float) -> float:
        """Return how many pages hold `rows`, strewn evenly `among` the rows below the cutoff.

        `order`: 1 where the heap lies in the age's order, so that those below it lie together; 0
        where they lie anywhere; in between blended as the planner does, by the square of pg_stats'
        correlation.
        """
        rows = min(max(rows, 0.0), float(self.rows))
        among = min(max(among, rows, 1.0), max(1.0, float(self.rows)))
        hit = 1 - float((1 - min(1.0, rows / among)) ** self.rows_per_page)
        together = min(float(self.pages), among / self.rows_per_page + 1) * hit
        apart = self.pages * (1 - float((1 - rows / max(1, self.rows)) ** self.rows_per_page))
        return min(float(self.pages), order * together + (1 - order) * apart)

    def toast_of(self, rows: float) -> tuple[float, float]:
        """Return the rows and pages of out-of-line storage that belong to so many rows."""
        share = min(1.0, rows / max(1, self.rows))
        return self.toast_rows * share, self.toast_pages * share

    def bytes_of(self, rows: float, block_size: int) -> float:
        """Return what so many rows take, and what VACUUM makes reusable once they are gone."""
        return rows * self.row_bytes + self.toast_of(rows)[1] * block_size


def server_of(connection: Connection) -> Server:
    """Return the server's settings."""
    block, pages, compression, cache = execute(connection, _SERVER).one()
    return Server(
        block_size=int(block),
        full_page_writes=pages,
        wal_compression=compression,
        cache_bytes=float(cache),
    )


def storage_of(connection: Connection, oid: int) -> Storage:
    """Return what a table takes; of a partitioned one, its partitions together."""
    partitions = [int(row[0]) for row in execute(connection, _PARTITIONS, oid=oid)]
    parts = [_single(connection, part) for part in partitions or [oid]]
    rows = sum(part.rows for part in parts)
    heap = sum(part.rows * part.row_bytes for part in parts)
    return Storage(
        rows=rows,
        pages=sum(part.pages for part in parts),
        row_bytes=heap / rows if rows else parts[0].row_bytes,
        analyzed=all(part.analyzed for part in parts),
        toast_rows=sum(part.toast_rows for part in parts),
        toast_pages=sum(part.toast_pages for part in parts),
        dead_rows=sum(part.dead_rows for part in parts),
        whole_row_logged=any(part.whole_row_logged for part in parts),
    )


def _single(connection: Connection, oid: int) -> Storage:
    row = execute(connection, _STORAGE, oid=oid).one()
    tuples, relpages, size, block, guessed_width, width, toast_rows, toast_pages, dead, logged = row
    pages = int(size) // int(block)
    row_bytes = float(width if width is not None else guessed_width or 0) + _ROW_OVERHEAD
    # As the planner does: yesterday's rows a page, times today's pages.
    known = tuples >= 0 and relpages > 0
    per_page: float = tuples / relpages if known else block / row_bytes
    if known and width is None:
        row_bytes = block / max(1.0, per_page)
    # A toast table is never analyzed, only vacuumed; until then a piece is a quarter of a page.
    pieces = int(toast_rows) if toast_rows > 0 else 4 * int(toast_pages)
    return Storage(
        rows=round(pages * per_page),
        pages=pages,
        row_bytes=row_bytes,
        analyzed=tuples >= 0 or not pages,
        toast_rows=pieces,
        toast_pages=int(toast_pages),
        dead_rows=int(dead or 0),
        whole_row_logged=logged,
    )


def null_share(connection: Connection, oid: int, columns: Sequence[str]) -> float:
    """Return the share of rows in which one of the columns is null; 0 before the first ANALYZE."""
    found = execute(connection, _NULL_SHARE, oid=oid, columns=list(columns)).scalar()
    return float(found or 0.0)
