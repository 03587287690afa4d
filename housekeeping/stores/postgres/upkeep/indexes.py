"""B-tree indexes, and how large a fresh one would be by the planner's statistics.

A model, within some 15 % of the truth while the statistics are fresh: it chooses candidates. Where
pgstattuple is installed they are measured before anything is rebuilt (density.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.stores.postgres.names import quoted
from housekeeping.stores.postgres.sizes import own_size
from housekeeping.stores.postgres.statement import Statement, execute, identifier

# On a page: header 24 bytes, the B-tree's own 16 at its end; each entry has a pointer of 4.
_PAGE_OVERHEAD = 24 + 16
_POINTER = 4
_TUPLE_HEADER = 8
_NULL_BITMAP = 8  # header and bitmap of up to 32 columns, aligned
_ALIGN = 8
_TID = 6
# A build packs equal keys into posting lists of at most a tenth of a page.
_POSTING_SHARE = 0.1
_DEFAULT_FILLFACTOR = 90
_LARGE_FANOUT = 200  # entries an inner page has for its children, when keys are short


@dataclass(frozen=True, kw_only=True)
class IndexState:
    """An index at one moment."""

    oid: int
    table_oid: int
    schema: str
    name: str
    table: str
    method: str
    bytes: int
    block_size: int
    rows: float
    fillfactor: int
    key_bytes: float | None
    """average width of an entry's columns; None where statistics miss for one of them"""
    distinct: float | None
    """different keys, None where unknown"""
    null_share: float
    """of the rows, which have a null in one of its columns"""
    columns: int
    deduplicates: bool
    valid: bool
    exclusion: bool

    @property
    def identifier(self) -> sql.Identifier:
        return identifier(self.schema, self.name)

    @property
    def label(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def pages(self) -> int:
        return self.bytes // self.block_size

    @property
    def quoted(self) -> str:
        return quoted(self.schema, self.name)

    def fresh_bytes(self) -> int | None:
        """Return how large it would be rebuilt; None where the statistics don't tell."""
        if self.method != "btree" or self.key_bytes is None or self.distinct is None:
            return None
        usable = (self.block_size - _PAGE_OVERHEAD) * self.fillfactor / 100
        leaves = ceil(self._entries_bytes() / usable)
        inner = ceil(leaves / _LARGE_FANOUT) if leaves > 1 else 0
        return (1 + leaves + inner) * self.block_size

    def bloat_share(self) -> float | None:
        """Return which share of it a rebuild would give back, 0 to 1; None where unknown."""
        fresh = self.fresh_bytes()
        if fresh is None or not self.bytes:
            return None
        return max(0.0, 1 - fresh / self.bytes)

    def _entries_bytes(self) -> float:
        assert self.key_bytes is not None
        assert self.distinct is not None
        nulls = self.rows * self.null_share
        if self.columns == 1 and self.deduplicates:
            # Nulls of a single column are equal to each other.
            return nulls * _TID + self._packed_bytes(self.rows - nulls, _TUPLE_HEADER)
        return self._packed_bytes(self.rows, _TUPLE_HEADER + (_NULL_BITMAP if nulls else 0))

    def _packed_bytes(self, rows: float, header: int) -> float:
        """Return what so many entries take, equal keys packed together where they may be."""
        assert self.key_bytes is not None
        assert self.distinct is not None
        key = _aligned(header + self.key_bytes)
        equal = rows / max(1.0, self.distinct)
        if not self.deduplicates or equal < 2:  # noqa: PLR2004 - most keys stand alone
            return rows * (key + _POINTER)
        a_list_holds = max(1.0, (self.block_size * _POSTING_SHARE - key) // _TID)
        lists = self.distinct * ceil(equal / a_list_holds)
        return lists * (key + _POINTER) + rows * _TID


def _aligned(width: float) -> float:
    return ceil(width / _ALIGN) * _ALIGN


_INDEXES = Statement(
    "upkeep.indexes",
    # Statistics of a plain column are kept for the table, those of an expression for the index.
    # A unique index has as many keys as rows; elsewhere the columns' own counts are multiplied, which
    # says more than there are, so that the model expects more and calls less of it bloat.
    sql.SQL(
        f"""
        SELECT i.indexrelid AS oid, i.indrelid AS table_oid, n.nspname AS schema, c.relname AS name,
               t.relname AS table, am.amname AS method,
               {own_size("c.oid")} AS bytes, current_setting('block_size')::int AS block_size,
               CASE WHEN c.reltuples >= 0 THEN c.reltuples ELSE greatest(t.reltuples, 0) END::float8
                   AS rows,
               coalesce((SELECT option_value::int FROM pg_options_to_table(c.reloptions)
                         WHERE option_name = 'fillfactor'), %(fillfactor)s) AS fillfactor,
               CASE WHEN columns.known THEN columns.width END AS key_bytes,
               CASE WHEN i.indisunique THEN greatest(c.reltuples, 0)::float8
                    WHEN columns.known THEN least(columns.keys, greatest(c.reltuples, 0)::float8) END
                   AS distinct,
               -- A partial index without the rows in which its columns are null has none.
               CASE WHEN i.indpred IS NOT NULL
                         AND c.reltuples <= 1.05 * t.reltuples * coalesce(columns.present, 1)
                    THEN 0 ELSE 1 - coalesce(columns.present, 1) END::float8 AS null_share,
               i.indnatts AS columns,
               coalesce((SELECT option_value::bool FROM pg_options_to_table(c.reloptions)
                         WHERE option_name = 'deduplicate_items'), true)
                   AND i.indnatts = i.indnkeyatts AS deduplicates,
               i.indisvalid AND i.indisready AND i.indislive AS valid, i.indisexclusion AS exclusion
        FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        JOIN pg_class t ON t.oid = i.indrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_am am ON am.oid = c.relam
        CROSS JOIN LATERAL (
            SELECT bool_and(s.avg_width IS NOT NULL) AS known,
                   sum(s.avg_width)::float8 AS width,
                   exp(sum(ln(greatest(1e-9, 1 - s.null_frac::float8)))) AS present,
                   exp(least(600, sum(ln(greatest(1, CASE WHEN s.n_distinct >= 0 THEN s.n_distinct
                       ELSE -s.n_distinct * greatest(t.reltuples, 1) END::float8)))))::float8 AS keys
            FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(num, pos)
            LEFT JOIN pg_attribute a ON a.attrelid = CASE WHEN k.num = 0 THEN i.indexrelid
                                                          ELSE i.indrelid END
                  AND a.attnum = CASE WHEN k.num = 0 THEN k.pos ELSE k.num END
            LEFT JOIN pg_stats s ON s.schemaname = n.nspname AND s.attname = a.attname
                  AND s.tablename = CASE WHEN k.num = 0 THEN c.relname ELSE t.relname END
                  AND NOT s.inherited
        ) AS columns
        WHERE i.indrelid = ANY(%(tables)s) AND c.relkind = 'i'
        ORDER BY 1
        """
    ),
)


def indexes_of(connection: Connection, tables: Sequence[int]) -> tuple[IndexState, ...]:
    """Return the indexes of these tables."""
    values: dict[str, Any] = {"tables": list(tables), "fillfactor": _DEFAULT_FILLFACTOR}
    rows = execute(connection, _INDEXES, **values).mappings()
    return tuple(IndexState(**row) for row in rows)
