"""The dated tables themselves: made before a row moves, grown with their source, counted.

A dated table holds every column of its source under the same name and type; generated and identity
columns are plain ones there, and only the key is NOT NULL, so that no later change of the source's
constraints keeps a row from being archived. What the ledger does not know as ours is never written to.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.policies.errors import PolicyRefused
from housekeeping.policies.purge import TableName
from housekeeping.stores.postgres.archive_layout import (
    ARCHIVED_AT,
    ARCHIVED_BY,
    ArchiveLayout,
    ArchivePart,
    Column,
    columns_of,
)
from housekeeping.stores.postgres.catalog import find_table
from housekeeping.stores.postgres.names import quoted
from housekeeping.stores.postgres.periods import Period
from housekeeping.stores.postgres.statement import Statement, execute, identifier, raw

_KNOWN = Statement(
    "archive.known",
    sql.SQL(
        """
        SELECT relation, source FROM housekeeping.archive_table
        WHERE dropped_at IS NULL AND relation = ANY(%(relations)s)
        """
    ),
)
_OF_SOURCES = Statement(
    "archive.of_sources",
    sql.SQL(
        """
        SELECT n.nspname, c.relname, t.source
        FROM housekeeping.archive_table t
        JOIN pg_namespace n ON starts_with(t.relation, n.nspname || '.')
        JOIN pg_class c ON c.relnamespace = n.oid AND n.nspname || '.' || c.relname = t.relation
        WHERE t.dropped_at IS NULL AND t.source = ANY(%(sources)s) AND t.policy = %(policy)s
        ORDER BY t.relation
        """
    ),
)
_ALONE = Statement(
    "archive.alone",
    # Under another prefix than the fence: several workers may meet a month for the first time at once.
    sql.SQL("SELECT pg_advisory_xact_lock((26732::bigint << 32) | %(oid)s::bigint)"),
)
_ENTER = Statement(
    "archive.enter",
    sql.SQL(
        """
        INSERT INTO housekeeping.archive_table AS t
            (relation, source, part_of, period, policy, key_columns, made_by)
        VALUES (%(relation)s, %(source)s, %(part_of)s, %(period)s, %(policy)s, %(key)s,
                %(run_id)s::uuid)
        -- a month that was dropped, and to which late rows now come
        ON CONFLICT (relation) DO UPDATE SET
            source = excluded.source, part_of = excluded.part_of, period = excluded.period,
            policy = excluded.policy, key_columns = excluded.key_columns, made_by = excluded.made_by,
            made_at = clock_timestamp(), rows = 0, last_row_at = NULL, dropped_at = NULL
        """
    ),
)
_COUNT = Statement(
    "archive.count",
    sql.SQL(
        """
        -- In one order, so that two workers of one run never wait for each other in a circle.
        WITH mine AS MATERIALIZED (
            SELECT relation FROM housekeeping.archive_table
            WHERE relation = ANY(%(relations)s) AND dropped_at IS NULL
            ORDER BY relation FOR NO KEY UPDATE)
        UPDATE housekeeping.archive_table t
        SET rows = t.rows + moved.rows, last_row_at = clock_timestamp()
        FROM unnest(%(relations)s::text[], %(rows)s::bigint[]) AS moved (relation, rows), mine
        WHERE t.relation = moved.relation AND t.relation = mine.relation
        """
    ),
)
_LEDGER_MADE = Statement(
    "archive.ledger_made",
    # Two steps in one: without USAGE on the schema, looking a table up in it is an error.
    sql.SQL(
        """
        SELECT CASE WHEN n.oid IS NOT NULL AND has_schema_privilege(n.oid, 'USAGE')
                    THEN to_regclass('housekeeping.archive_table') IS NOT NULL ELSE false END
        FROM (SELECT 1) AS always LEFT JOIN pg_namespace n ON n.nspname = 'housekeeping'
        """
    ),
)


@dataclass(frozen=True)
class DatedTable:
    """Where one table's rows of one period go."""

    part: ArchivePart
    period: Period
    schema: str
    name: str

    @property
    def label(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def identifier(self) -> sql.Identifier:
        return identifier(self.schema, self.name)


def dated_tables(layout: ArchiveLayout, period: Period) -> tuple[DatedTable, ...]:
    """Return the dated tables of a period, in the order of the layout's parts."""
    return tuple(DatedTable(part, period, *part.relation(layout, period)) for part in layout.parts)


def known_tables(
    connection: Connection, policy: str, layout: ArchiveLayout
) -> list[tuple[str, str, ArchivePart]]:
    """Return schema, name and part of every dated table the ledger knows of a policy; reads only."""
    if not execute(connection, _LEDGER_MADE).scalar_one():
        return []
    parts = {part.source.label: part for part in layout.parts}
    found = execute(connection, _OF_SOURCES, sources=list(parts), policy=policy).all()
    return [(schema, name, parts[source]) for schema, name, source in found]


def refuse_changed(connection: Connection, policy: str, layout: ArchiveLayout) -> None:
    """Refuse when a source's column no longer has the type its dated tables were made with.

    Reads only. Raises PolicyRefused.
    """
    for schema, name, part in known_tables(connection, policy, layout):
        oid = find_table(connection, TableName(name, schema))
        if oid is not None:
            _missing(policy, part, (schema, name), columns_of(connection, oid))


def prepare(
    connection: Connection, policy: str, run_id: UUID, layout: ArchiveLayout, period: Period
) -> None:
    """Make a period's dated tables, or let them grow by the columns their source has got since.

    Inside a transaction. Raises PolicyRefused for a table that is not ours or whose type differs.
    """
    tables = dated_tables(layout, period)
    execute(connection, _ALONE, oid=layout.parts[0].source.oid)
    labels = [table.label for table in tables]
    known = {row[0]: row[1] for row in execute(connection, _KNOWN, relations=labels)}
    for table in {table.label: table for table in tables}.values():
        oid = find_table(connection, TableName(table.name, table.schema))
        if oid is not None:
            _refuse_foreign(policy, table, known.get(table.label))
            there = columns_of(connection, oid)
            for column in _missing(policy, table.part, (table.schema, table.name), there):
                _add(connection, table, column)
            continue
        _make(connection, table)
        execute(
            connection,
            _ENTER,
            relation=table.label,
            source=table.part.source.label,
            part_of=None if table is tables[0] else tables[0].label,
            period=period.label,
            policy=policy,
            key=list(table.part.key),
            run_id=str(run_id),
        )


def count_in(connection: Connection, moved: Mapping[str, int]) -> None:
    """Add the rows a window moved to what the ledger knows of each dated table.

    Raises PolicyRefused when one of them is no longer there; the caller rolls back.
    """
    rows = {relation: count for relation, count in moved.items() if count}
    if not rows:
        return
    counted = execute(connection, _COUNT, relations=list(rows), rows=list(rows.values())).rowcount
    if counted != len(rows):
        raise PolicyRefused(
            f"the ledger no longer knows all of {', '.join(rows)} as archive tables; somebody dropped "
            "one while rows moved to it. Nothing of this window has moved; run it again"
        )


def _refuse_foreign(policy: str, table: DatedTable, source: str | None) -> None:
    if source == table.part.source.label:
        return
    whose = f"holds rows of {source}" if source else "was not made by housekeeping"
    raise PolicyRefused(
        f"{policy}: {table.label} {whose}, so no rows of {table.part.source.label} are moved to it. "
        f"Rename it or drop it if it is of no use ({quoted(table.schema, table.name)}), or give the "
        "policy another archive prefix"
    )


def _missing(
    policy: str, part: ArchivePart, relation: tuple[str, str], there: Sequence[Column]
) -> list[Column]:
    """Return the source's columns a dated table lacks; refuse one whose type differs."""
    types = {column.name: column.type for column in there}
    lacking = []
    for column in part.columns:
        if column.name not in types:
            lacking.append(column)
        elif types[column.name] != column.type:
            table = quoted(*relation)
            raise PolicyRefused(
                f"{policy}: {column.name} of {part.source.label} is {column.type} by now, but "
                f"{types[column.name]} in its archive {table}. Nothing is moved until they agree: "
                f"ALTER TABLE {table} ALTER COLUMN {quoted(column.name)} TYPE {column.type}, "
                "or rename that table away"
            )
    return lacking


def _make(connection: Connection, table: DatedTable) -> None:
    part = table.part
    create = sql.SQL(
        "CREATE TABLE {table} (LIKE {source} INCLUDING STORAGE INCLUDING COMPRESSION)"
    ).format(table=table.identifier, source=part.source.identifier)
    execute(connection, Statement("archive.create", create))
    changes = [
        sql.SQL("ALTER COLUMN {} DROP NOT NULL").format(identifier(column.name))
        for column in part.columns
        if column.not_null and column.name not in part.key
    ]
    changes += [
        sql.SQL("ADD COLUMN {} timestamptz NOT NULL").format(identifier(ARCHIVED_AT)),
        sql.SQL("ADD COLUMN {} uuid NOT NULL").format(identifier(ARCHIVED_BY)),
    ]
    if part.key:
        key = sql.SQL(", ").join(identifier(column) for column in part.key)
        changes.append(sql.SQL("ADD PRIMARY KEY ({})").format(key))
    alter = sql.SQL("ALTER TABLE {} {}").format(table.identifier, sql.SQL(", ").join(changes))
    execute(connection, Statement("archive.shape", alter))


def _add(connection: Connection, table: DatedTable, column: Column) -> None:
    collation = sql.SQL(" COLLATE {}").format(raw(column.collation)) if column.collation else None
    body = sql.SQL("ALTER TABLE {table} ADD COLUMN {name} {type}{collation}").format(
        table=table.identifier,
        name=identifier(column.name),
        type=raw(column.type),  # from format_type, which quotes what needs quoting
        collation=collation or sql.SQL(""),
    )
    execute(connection, Statement("archive.grow", body))
