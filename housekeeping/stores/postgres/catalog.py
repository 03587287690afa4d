"""What the catalog says of a table: its kind, columns, foreign keys, triggers, our privileges."""

from dataclasses import dataclass, field

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.policies.purge import TableName
from housekeeping.stores.postgres.names import clipped, qualified
from housekeeping.stores.postgres.statement import Statement, execute, identifier


@dataclass(frozen=True, kw_only=True)
class ForeignKey:
    """A foreign key that points at a table."""

    name: str
    child_oid: int
    child_schema: str
    child: str
    columns: tuple[str, ...]
    """of the child"""
    parent_columns: tuple[str, ...]
    on_delete: str
    """pg_constraint.confdeltype: a no action, r restrict, c cascade, n set null, d set default"""
    indexed: bool
    child_kind: str
    """pg_class.relkind"""

    @property
    def cascades(self) -> bool:
        return self.on_delete == "c"

    @property
    def forbids(self) -> bool:
        return self.on_delete in "ar"

    def references_itself(self, oid: int) -> bool:
        return self.child_oid == oid


@dataclass(frozen=True, kw_only=True)
class TableFacts:
    """A table as the catalog describes it at the start of a run."""

    oid: int
    database: str
    schema: str
    name: str
    kind: str
    """pg_class.relkind"""
    pages: int
    block_size: int
    rows: float
    """estimate; negative when the table was never analyzed"""
    columns: dict[str, str]
    """name to type, as format_type writes it"""
    has_children: bool
    role: str
    privileges: frozenset[str]
    rows_hidden: bool
    """row-level security applies to us"""
    delete_triggers: tuple[str, ...]
    before_delete_triggers: tuple[str, ...]
    """may keep a row by returning NULL"""
    filenode: int
    """changes when the table is rewritten: then its rows lie elsewhere"""
    delete_rules: tuple[str, ...]
    publications_refusing: tuple[str, ...]
    """publish deletes while the table has no replica identity"""
    foreign_keys: tuple[ForeignKey, ...] = field(default=())

    @property
    def identifier(self) -> sql.Identifier:
        return identifier(self.schema, self.name)

    @property
    def label(self) -> str:
        return f"{self.schema}.{self.name}"


_FIND = Statement(
    "catalog.find_table",
    sql.SQL(
        """
        SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relname = %(name)s
          AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
          AND CASE WHEN %(schema)s::text IS NULL THEN pg_table_is_visible(c.oid)
                   ELSE n.nspname = %(schema)s::text END
        """
    ),
)

_NAMES = Statement(
    "catalog.table_names",
    sql.SQL(
        """
        SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
          AND n.nspname NOT LIKE 'pg_toast%%' AND n.nspname <> %(ours)s
        ORDER BY 1 LIMIT 2000
        """
    ),
)

_DESCRIBE = Statement(
    "catalog.describe_table",
    sql.SQL(
        """
        SELECT current_database(), n.nspname, c.relname, c.relkind,
               CASE WHEN c.relkind IN ('r', 'm') THEN
                   pg_relation_size(c.oid) / current_setting('block_size')::int ELSE 0 END,
               current_setting('block_size')::int, c.reltuples,
               EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid),
               current_user,
               ARRAY(SELECT p FROM unnest(ARRAY['SELECT', 'UPDATE', 'DELETE']) p
                     WHERE has_table_privilege(c.oid, p)),
               CASE WHEN c.relkind IN ('r', 'p') THEN row_security_active(c.oid) ELSE false END,
               ARRAY(SELECT t.tgname::text FROM pg_trigger t
                     WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled <> 'D'
                       AND t.tgtype & 8 <> 0 AND t.tgtype & 1 <> 0),
               ARRAY(SELECT t.tgname::text FROM pg_trigger t
                     WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled <> 'D'
                       AND t.tgtype & 8 <> 0 AND t.tgtype & 1 <> 0 AND t.tgtype & 2 <> 0),
               coalesce(pg_relation_filenode(c.oid), 0)::bigint,
               ARRAY(SELECT r.rulename::text FROM pg_rewrite r
                     WHERE r.ev_class = c.oid AND r.ev_type = '4'),
               ARRAY(SELECT DISTINCT p.pubname::text FROM pg_publication p
                     WHERE p.pubdelete AND c.relkind = 'r'
                       AND (p.puballtables OR EXISTS (
                           SELECT FROM pg_publication_tables pt WHERE pt.pubname = p.pubname
                           AND pt.schemaname = n.nspname AND pt.tablename = c.relname))
                       AND (c.relreplident = 'n' OR (c.relreplident = 'd' AND NOT EXISTS (
                           SELECT FROM pg_index x WHERE x.indrelid = c.oid AND x.indisprimary))))
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = %(oid)s
        """
    ),
)

_COLUMNS = Statement(
    "catalog.columns",
    sql.SQL(
        """
        SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
        WHERE attrelid = %(oid)s AND attnum > 0 AND NOT attisdropped ORDER BY attnum
        """
    ),
)

_FOREIGN_KEYS = Statement(
    "catalog.inbound_foreign_keys",
    sql.SQL(
        """
        SELECT con.conname, con.conrelid, n.nspname, c.relname, con.confdeltype, c.relkind,
               ARRAY(SELECT a.attname::text FROM unnest(con.conkey) WITH ORDINALITY k(num, pos)
                     JOIN pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = k.num
                     ORDER BY k.pos),
               ARRAY(SELECT a.attname::text FROM unnest(con.confkey) WITH ORDINALITY k(num, pos)
                     JOIN pg_attribute a ON a.attrelid = con.confrelid AND a.attnum = k.num
                     ORDER BY k.pos),
               EXISTS (
                   SELECT FROM pg_index i
                   WHERE i.indrelid = con.conrelid AND i.indisvalid AND i.indpred IS NULL
                     AND (SELECT array_agg(k ORDER BY k) FROM
                          unnest((i.indkey::int2[])[0:cardinality(con.conkey) - 1]) k)
                       = (SELECT array_agg(k ORDER BY k) FROM unnest(con.conkey) k))
        FROM pg_constraint con
        JOIN pg_class c ON c.oid = con.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE con.contype = 'f' AND con.confrelid = %(oid)s
          -- A partitioned child has a copy of the key on each of its partitions.
          AND NOT EXISTS (SELECT FROM pg_constraint parent WHERE parent.oid = con.conparentid
                          AND parent.confrelid = con.confrelid)
        ORDER BY con.conname
        """
    ),
)


def find_table(connection: Connection, table: TableName) -> int | None:
    """Return the oid of a table, or None.

    The name is first taken as it stands, then as SQL reads it, so that `weird.name` and
    `schema.name` both find what they mean.
    """
    attempts = [(table.schema, clipped(table.name))]
    if table.schema is None and (read := qualified(table.name)) is not None:
        attempts.append((read[0], clipped(read[1])))
    for schema, name in attempts:
        if (oid := execute(connection, _FIND, name=name, schema=schema).scalar()) is not None:
            return int(oid)
    return None


def table_names(connection: Connection) -> list[str]:
    """Return the names of the users' tables, for a did-you-mean."""
    return [str(row[0]) for row in execute(connection, _NAMES, ours="housekeeping")]


def describe_table(connection: Connection, oid: int) -> TableFacts:
    """Return what the catalog knows of a table."""
    row = execute(connection, _DESCRIBE, oid=oid).one()
    columns = {str(name): str(type_) for name, type_ in execute(connection, _COLUMNS, oid=oid)}
    return TableFacts(
        oid=oid,
        database=row[0],
        schema=row[1],
        name=row[2],
        kind=row[3],
        pages=int(row[4]),
        block_size=int(row[5]),
        rows=float(row[6]),
        columns=columns,
        has_children=row[7],
        role=row[8],
        privileges=frozenset(row[9]),
        rows_hidden=row[10],
        delete_triggers=tuple(row[11]),
        before_delete_triggers=tuple(row[12]),
        filenode=int(row[13]),
        delete_rules=tuple(row[14]),
        publications_refusing=tuple(row[15]),
        foreign_keys=foreign_keys(connection, oid),
    )


def foreign_keys(connection: Connection, oid: int) -> tuple[ForeignKey, ...]:
    """Return the foreign keys that point at a table."""
    return tuple(
        ForeignKey(
            name=row[0],
            child_oid=row[1],
            child_schema=row[2],
            child=row[3],
            on_delete=row[4],
            child_kind=row[5],
            columns=tuple(row[6]),
            parent_columns=tuple(row[7]),
            indexed=row[8],
        )
        for row in execute(connection, _FOREIGN_KEYS, oid=oid)
    )
