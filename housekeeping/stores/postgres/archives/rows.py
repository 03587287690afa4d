"""A table's rows as text, from one snapshot, some at a time: whatever its types, nothing is lost."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.policies.pace import Pace
from housekeeping.stores.postgres.connection import set_guards
from housekeeping.stores.postgres.statement import Statement, execute, identifier

TextRow = tuple[str | None, ...]

# A fetch of 8 MB takes about 0.1 s; a slow object store may keep us waiting between two of them.
_FETCH_BYTES = 8 << 20
_FIRST_FETCH, _LARGEST_FETCH = 100, 20_000
# Half an hour a statement: the first counts and sums the whole table up. Who waits for us meanwhile is
# let through by the watch the reader sets up.
_FETCH_PACE = Pace(lock_timeout=timedelta(seconds=2), batch_target=timedelta(minutes=7.5))

# What decides how a value is written as text, so that the same value is the same text everywhere.
_TEXT_SETTINGS = Statement(
    "archives.text_settings",
    sql.SQL(
        """
        SELECT set_config('DateStyle', 'ISO, YMD', true), set_config('TimeZone', 'UTC', true),
               set_config('IntervalStyle', 'postgres', true), set_config('bytea_output', 'hex', true),
               -- below 1 the last digits of a float are left out
               set_config('extra_float_digits', '1', true),
               set_config('lc_monetary', 'C', true), set_config('xmlbinary', 'base64', true),
               set_config('quote_all_identifiers', 'off', true),
               -- so that a regclass is written with its schema
               set_config('search_path', 'pg_catalog', true),
               set_config('jit', 'off', true),
               -- else a large table is read from where another scan of it is, or was ended
               set_config('synchronize_seqscans', 'off', true),
               set_config('idle_in_transaction_session_timeout', '10min', true)
        """
    ),
)
_ALL_ROWS = Statement(
    "archives.all_rows",
    sql.SQL("SELECT set_config('row_security', 'off', true)"),
)
_READING_SETTINGS = Statement(
    "archives.reading_settings",
    # What of them decides how text is read; not the search_path, by which the table's triggers go.
    sql.SQL(
        """
        SELECT set_config('array_nulls', 'on', true), set_config('lc_monetary', 'C', true),
               set_config('IntervalStyle', 'postgres', true)
        """
    ),
)
_COLUMNS = Statement(
    "archives.columns",
    sql.SQL(
        """
        SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), t.typname::text,
               quote_ident(n.nspname) || '.' || quote_ident(t.typname), a.attnotnull,
               a.attgenerated <> '', a.atthasdef OR a.attidentity <> ''
        FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
        JOIN pg_namespace n ON n.oid = t.typnamespace
        WHERE a.attrelid = %(oid)s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
        """
    ),
)
_CLOSE = Statement("archives.close", sql.SQL("CLOSE hk_rows"))


@dataclass(frozen=True)
class TextColumn:
    """A column whose values travel as text."""

    name: str
    type: str
    """as format_type writes it"""
    kind: str
    """pg_type.typname"""
    cast: str
    """the type's own name, quoted, without a length: a cast to it cuts nothing off"""
    not_null: bool
    generated: bool
    has_default: bool


@dataclass(frozen=True)
class Fingerprint:
    """How many rows a table holds, and which, as far as a sum of hashes can tell."""

    rows: int
    hashes: int | None = None
    """None where only the count was asked for"""


def text_columns(connection: Connection, oid: int) -> tuple[TextColumn, ...]:
    """Return a table's columns in their order."""
    return tuple(TextColumn(*row) for row in execute(connection, _COLUMNS, oid=oid))


@contextmanager
def snapshot(connection: Connection) -> Iterator[None]:
    """Read for a block in one transaction that sees one moment, values written as canonical text."""
    with connection.begin():
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        set_guards(connection, _FETCH_PACE, seqscan=True)
        write_canonical_text(connection)
        require_all_rows(connection)
        yield


def require_all_rows(connection: Connection) -> None:
    """Have the transaction that is open fail, rather than leave out, where rows are hidden from us."""
    execute(connection, _ALL_ROWS)


def write_canonical_text(connection: Connection) -> None:
    """Have the transaction that is open write values the same way everywhere."""
    execute(connection, _TEXT_SETTINGS)


def read_canonical_text(connection: Connection) -> None:
    """Have the transaction that is open read values as `write_canonical_text` has them written."""
    execute(connection, _READING_SETTINGS)


def text_of(column: str) -> sql.Composable:
    """Return a column's value as the type's own output function writes it, NULL staying NULL.

    Not a cast: one to text would take the blanks of a char(8), and call true `true`.
    """
    # IS NULL would be true of a composite whose fields are all null.
    return sql.SQL(
        "CASE WHEN {0} IS NOT DISTINCT FROM NULL THEN NULL ELSE pg_catalog.format('%%s', {0}) END"
    ).format(identifier(column))


def text_rows(
    connection: Connection, table: sql.Identifier, columns: Sequence[str]
) -> Iterator[list[TextRow]]:
    """Yield a table's rows in a `snapshot`, as many at a time as fit in some megabytes."""
    select = sql.SQL("DECLARE hk_rows NO SCROLL CURSOR FOR SELECT {} FROM {}").format(
        sql.SQL(", ").join(text_of(column) for column in columns), table
    )
    execute(connection, Statement("archives.read", select))
    size = _FIRST_FETCH
    while True:
        body = sql.SQL("FETCH FORWARD {} FROM hk_rows").format(sql.Literal(size))
        batch = [tuple(row) for row in execute(connection, Statement("archives.fetch", body))]
        if not batch:
            break
        yield batch
        taken = sum(len(value) for row in batch for value in row if value is not None)
        fitting = int(_FETCH_BYTES * len(batch) / max(1, taken))
        size = max(1, min(fitting, 2 * size, _LARGEST_FETCH))
    execute(connection, _CLOSE)


def key_ends(
    connection: Connection, table: sql.Identifier, key: Sequence[str]
) -> tuple[TextRow | None, TextRow | None]:
    """Return the first and the last key of a table in a `snapshot`; None without rows or key."""
    if not key:
        return None, None
    ends = []
    for direction in ("ASC", "DESC"):
        body = sql.SQL("SELECT {} FROM {} ORDER BY {} LIMIT 1").format(
            sql.SQL(", ").join(text_of(column) for column in key),
            table,
            sql.SQL(", ").join(
                sql.SQL("{} {}").format(identifier(column), sql.SQL(direction)) for column in key
            ),
        )
        row = execute(connection, Statement("archives.key_end", body)).first()
        ends.append(None if row is None else tuple(row))
    return ends[0], ends[1]


def fingerprint(
    connection: Connection, table: sql.Identifier, *, hashed: bool = False
) -> Fingerprint:
    """Count a table's rows exactly; `hashed`: and sum the hashes of their canonical text."""
    hashes = sql.SQL(
        ", coalesce(pg_catalog.sum(pg_catalog.hashtextextended((hk_row.*)::text, 0)::numeric), 0)"
        if hashed
        else ", NULL"
    )
    body = sql.SQL("SELECT pg_catalog.count(*){} FROM {} AS hk_row").format(hashes, table)
    rows, total = execute(connection, Statement("archives.count", body)).one()
    return Fingerprint(int(rows), None if total is None else int(total))
