"""TimescaleDB: a hypertable's chunks go through its own drop_chunks, one at a time."""

from dataclasses import dataclass

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.stores.postgres.catalog import TableFacts
from housekeeping.stores.postgres.statement import Statement, execute, identifier

_TIME = "timestamp with time zone"
_INTEGERS = ("bigint", "integer")

_PRESENT = Statement(
    "timescale.present",
    sql.SQL(
        """
        SELECT to_regclass('timescaledb_information.dimensions') IS NOT NULL
           AND to_regclass('timescaledb_information.chunks') IS NOT NULL
        """
    ),
)
_DIMENSION = Statement(
    "timescale.dimension",
    sql.SQL(
        """
        SELECT column_name::text, column_type::text,
               (SELECT n.nspname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
                WHERE p.proname = 'drop_chunks' AND p.proargtypes[0] = 'regclass'::regtype LIMIT 1),
               pg_has_role(c.relowner, 'USAGE')
        FROM timescaledb_information.dimensions d, pg_class c
        WHERE c.oid = %(oid)s AND d.hypertable_schema = %(schema)s
          AND d.hypertable_name = %(name)s AND d.dimension_number = 1
        """
    ),
)
_EXPIRED = Statement(
    "timescale.expired_chunks",
    sql.SQL(
        """
        SELECT k.chunk_schema::text, k.chunk_name::text, format('%%I.%%I', k.chunk_schema, k.chunk_name),
               CASE WHEN %(timed)s THEN k.range_start::text ELSE k.range_start_integer::text END,
               CASE WHEN %(timed)s THEN k.range_end::text ELSE k.range_end_integer::text END,
               greatest(c.reltuples, 0)::bigint, pg_total_relation_size(c.oid)
        FROM timescaledb_information.chunks k
        JOIN pg_namespace n ON n.nspname = k.chunk_schema
        JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = k.chunk_name
        WHERE k.hypertable_schema = %(schema)s AND k.hypertable_name = %(name)s
          AND (k.range_end <= %(moment)s OR k.range_end_integer <= %(number)s)
        ORDER BY k.range_end, k.range_end_integer, k.range_start, k.range_start_integer, c.oid
        """
    ),
)


@dataclass(frozen=True)
class Hypertable:
    """A hypertable's first dimension: what its chunks range over."""

    facts: TableFacts
    column: str
    type: str
    functions: str
    """schema of drop_chunks"""
    owned: bool

    @property
    def understood(self) -> bool:
        """Whether the end of a chunk can be compared with a cutoff as it stands."""
        return self.type == _TIME or self.type in _INTEGERS


@dataclass(frozen=True)
class Chunk:
    """A chunk all of whose rows are older than the cutoff."""

    schema: str
    name: str
    quoted: str
    """as drop_chunks tells of it"""
    start: str | None
    """as text; None where it has none"""
    end: str
    """exclusive, as text"""
    rows: int
    """estimate"""
    bytes: int

    @property
    def label(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def bounds(self) -> str:
        return f"until {self.end}"


def hypertable(connection: Connection, facts: TableFacts) -> Hypertable | None:
    """Return what TimescaleDB knows of a table; None where it is none of its."""
    if not execute(connection, _PRESENT).scalar_one():
        return None
    who = {"oid": facts.oid, "schema": facts.schema, "name": facts.name}
    found = execute(connection, _DIMENSION, **who).first()
    if found is None or found[2] is None:
        return None
    return Hypertable(facts, found[0], found[1], found[2], found[3])


def expired_chunks(connection: Connection, table: Hypertable, cutoff: object) -> list[Chunk]:
    """Return the chunks that end at or before a cutoff, oldest first.

    With more than one dimension several have the same start and end; they follow one another.
    """
    timed = table.type == _TIME
    found = execute(
        connection,
        _EXPIRED,
        schema=table.facts.schema,
        name=table.facts.name,
        timed=timed,
        moment=cutoff if timed else None,
        number=None if timed else cutoff,
    )
    return [Chunk(*row) for row in found]


def drop_chunks_between(
    connection: Connection, table: Hypertable, start: str | None, end: str
) -> set[str]:
    """Drop the chunks that begin at `start` or later and end at `end` or before; return their names.

    Inside the transaction that is open. Without `start` older chunks go as well: those a run left
    alone, too. Both bounds are there, under these names, in every TimescaleDB whose drop_chunks takes
    the table first, which is 2.0 and newer.
    """
    body = sql.SQL(
        "SELECT {function}(%(oid)s::oid::regclass, older_than => %(end)s::{type},"
        " newer_than => %(start)s::{type})"
    ).format(
        function=identifier(table.functions, "drop_chunks"),
        type=sql.SQL(table.type if table.type in _INTEGERS else _TIME),
    )
    statement = Statement("timescale.drop_chunks", body)
    values = {"oid": table.facts.oid, "start": start, "end": end}
    return {str(row[0]) for row in execute(connection, statement, **values)}
