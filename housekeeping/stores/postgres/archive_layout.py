"""Which dated tables a policy's rows move to: names, columns, keys, looked up before a row moves."""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.policies.archive import ArchiveIndex, ArchiveTo
from housekeeping.policies.errors import PolicyRefused, PrivilegeMissing
from housekeeping.policies.purge import PurgePolicy
from housekeeping.stores.postgres.catalog import TableFacts, describe_table, foreign_keys
from housekeeping.stores.postgres.names import IDENTIFIER_BYTES, quoted
from housekeeping.stores.postgres.periods import Period
from housekeeping.stores.postgres.relatives import Child
from housekeeping.stores.postgres.statement import Statement, execute

ARCHIVED_AT = "archived_at"
ARCHIVED_BY = "archived_by_run"
# What a statement calls its own columns beside the source's.
_OURS = ("hk_age", "hk_into", "hk_reason")
_LONGEST_PERIOD = "0000_00"

_COLUMNS = Statement(
    "archive.columns",
    sql.SQL(
        """
        SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull,
               CASE WHEN a.attcollation <> t.typcollation THEN
                   (SELECT format('%%I.%%I', n.nspname, c.collname) FROM pg_collation c
                    JOIN pg_namespace n ON n.oid = c.collnamespace WHERE c.oid = a.attcollation) END
        FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
        WHERE a.attrelid = %(oid)s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
        """
    ),
)
_KEY = Statement(
    "archive.key",
    # The primary key, or else a unique index that holds every row: full, on columns never null.
    sql.SQL(
        """
        SELECT ARRAY(SELECT a.attname::text FROM unnest((i.indkey::int2[])[0:i.indnkeyatts - 1])
                         WITH ORDINALITY k(num, pos)
                     JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.num
                     ORDER BY k.pos)
        FROM pg_index i
        WHERE i.indrelid = %(oid)s AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
          AND i.indexprs IS NULL
          AND NOT EXISTS (SELECT FROM unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) k
                          JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k
                          WHERE NOT a.attnotnull)
        ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid LIMIT 1
        """
    ),
)
_MAY_CREATE = Statement(
    "archive.may_create",
    sql.SQL(
        """
        SELECT n.oid IS NOT NULL, coalesce(has_schema_privilege(n.oid, 'CREATE'), false), current_user
        FROM (SELECT 1) AS always LEFT JOIN pg_namespace n ON n.nspname = %(schema)s
        """
    ),
)


@dataclass(frozen=True)
class Column:
    """A column as the catalog has it."""

    name: str
    type: str
    not_null: bool
    collation: str | None
    """quoted, where it is not the type's own"""


@dataclass(frozen=True)
class ArchivePart:
    """One table whose rows move: the purged table, or a child of it."""

    source: TableFacts
    suffix: str
    """of its dated tables' names; empty for the purged table itself"""
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    """columns that tell its rows apart; empty where it has no such index"""

    def relation(self, layout: "ArchiveLayout", period: Period) -> tuple[str, str]:
        """Return schema and name of its dated table for a period."""
        tail = f"_{self.suffix}" if self.suffix else ""
        return layout.schema, f"{layout.prefix}_{period.label}{tail}"


@dataclass(frozen=True)
class ArchiveLayout:
    """Where all rows of one policy move to."""

    schema: str
    prefix: str
    by_run: bool
    """the run's month, not the rows', names the tables"""
    parts: tuple[ArchivePart, ...]
    """the purged table first, then its children in their order"""
    indexes: tuple[ArchiveIndex, ...]


def columns_of(connection: Connection, oid: int) -> tuple[Column, ...]:
    """Return a table's columns in their order."""
    return tuple(Column(*row) for row in execute(connection, _COLUMNS, oid=oid))


def row_key(connection: Connection, oid: int) -> tuple[str, ...]:
    """Return columns that tell a table's rows apart; empty where no index holds that they do."""
    return tuple(execute(connection, _KEY, oid=oid).scalar() or ())


def layout_of(
    connection: Connection, policy: PurgePolicy, facts: TableFacts, children: Sequence[Child]
) -> ArchiveLayout | None:
    """Look up what an archive needs; None for a policy that deletes.

    Raises PolicyRefused for what would lose a row or could not be made.
    """
    to = policy.archive
    if to is None:
        return None
    schema = to.schema or facts.schema
    parts = [_part(connection, facts, "")]
    for child in children:
        own = describe_table(connection, child.foreign_key.child_oid)
        _refuse_grandchildren(connection, policy, own)
        parts.append(_part(connection, own, to.suffix_of(own.name)))
    _refuse_columns(policy, parts)
    _refuse_names(policy, to, parts)
    _refuse_schema(connection, policy, schema)
    _refuse_indexes(policy, to, parts)
    return ArchiveLayout(schema, to.prefix, to.month_of == "run", tuple(parts), to.indexes)


def _part(connection: Connection, facts: TableFacts, suffix: str) -> ArchivePart:
    columns = columns_of(connection, facts.oid)
    return ArchivePart(facts, suffix, columns, row_key(connection, facts.oid))


def _refuse_grandchildren(connection: Connection, policy: PurgePolicy, child: TableFacts) -> None:
    for key in foreign_keys(connection, child.oid):
        if key.cascades:
            raise PolicyRefused(
                f"{policy.name}: archiving {policy.table} moves rows of {child.label} along, and rows "
                f"of {key.child_schema}.{key.child} would be deleted with those by {key.name} "
                "(ON DELETE CASCADE), archived nowhere. Give that table an archive policy of its own "
                "with a shorter age, and declare the key NO ACTION"
            )


def _refuse_columns(policy: PurgePolicy, parts: Sequence[ArchivePart]) -> None:
    for part in parts:
        for name in (ARCHIVED_AT, ARCHIVED_BY, *_OURS):
            if name in part.source.columns:
                raise PolicyRefused(
                    f"{policy.name}: {part.source.label} has a column {name!r}, which its archive "
                    "needs for itself: rename it, or leave the table to a policy that deletes"
                )


def _refuse_names(policy: PurgePolicy, to: ArchiveTo, parts: Sequence[ArchivePart]) -> None:
    names = [
        f"{to.prefix}_{_LONGEST_PERIOD}" + (f"_{part.suffix}" if part.suffix else "")
        for part in parts
    ]
    for name in names:
        if len(name.encode()) > IDENTIFIER_BYTES:
            raise PolicyRefused(
                f"{policy.name}: PostgreSQL keeps {IDENTIFIER_BYTES} bytes of a name, and the archive "
                f"table {name!r} has {len(name.encode())}. Give a shorter prefix"
            )
    # A child that refers by two keys is one table all the same.
    named = {(name, part.source.label) for name, part in zip(names, parts, strict=True)}
    if len({name for name, _ in named}) < len(named):
        raise PolicyRefused(
            f"{policy.name}: two tables would be archived under one name: {', '.join(names)}"
        )


def _refuse_schema(connection: Connection, policy: PurgePolicy, schema: str) -> None:
    there, may_create, role = execute(connection, _MAY_CREATE, schema=schema).one()
    if not there:
        raise PolicyRefused(
            f"{policy.name}: there is no schema {schema!r} for the archive. Make it: "
            f"CREATE SCHEMA {quoted(schema)} AUTHORIZATION {quoted(role)}"
        )
    if not may_create:
        raise PrivilegeMissing(
            policy=policy.name,
            role=role,
            privilege="make the archive's tables",
            table=f"schema {schema}",
            remedy=f"GRANT USAGE, CREATE ON SCHEMA {quoted(schema)} TO {quoted(role)}",
        )


def _refuse_indexes(policy: PurgePolicy, to: ArchiveTo, parts: Sequence[ArchivePart]) -> None:
    by_name = {part.source.name if part.suffix else None: part for part in parts}
    for index in to.indexes:
        part = by_name.get(index.table)
        if part is None:
            continue  # an older generation of the schema has no such child
        for column in index.columns:
            if column not in part.source.columns:
                raise PolicyRefused(
                    f"{policy.name}: the archive's index names the column {column!r}, which "
                    f"{part.source.label} does not have"
                )
