"""Dated tables the ledger knows, and what the catalog says of each: nothing else is ever ours."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.stores.postgres.archive_layout import ARCHIVED_AT, ARCHIVED_BY
from housekeeping.stores.postgres.archives.exportable import Exportable
from housekeeping.stores.postgres.sizes import total_size
from housekeeping.stores.postgres.statement import Statement, execute, identifier

# A label is `schema.name` unquoted: where names hold dots, two tables could have one label.
_KNOWN = Statement(
    "archives.known",
    sql.SQL(
        f"""
        SELECT a.relation, a.source, a.part_of, coalesce(main.source, a.source), a.period, a.policy,
               a.key_columns, a.rows,
               a.made_by::text, a.made_at, a.last_row_at, a.exported, a.exported_at, a.dropped_at,
               found.oids, found.schema, found.name, found.kind, coalesce(found.archive_columns, 0),
               coalesce(found.may_drop, false), coalesce(found.rows_hidden, false), found.owner,
               coalesce({total_size("found.oids[1]")}, 0)
        FROM housekeeping.archive_table a
        LEFT JOIN housekeeping.archive_table main ON main.relation = a.part_of
        LEFT JOIN LATERAL (
            SELECT array_agg(c.oid::bigint) AS oids, min(n.nspname::text) AS schema,
                   min(c.relname::text) AS name, min(c.relkind::text) AS kind,
                   bool_and(pg_has_role(c.relowner, 'USAGE') OR pg_has_role(n.nspowner, 'USAGE'))
                       AS may_drop,
                   bool_or(c.relkind = 'r' AND row_security_active(c.oid)) AS rows_hidden,
                   min(pg_get_userbyid(c.relowner)::text) AS owner,
                   min((SELECT count(*) FROM pg_attribute x
                        WHERE x.attrelid = c.oid AND NOT x.attisdropped
                          AND (x.attname, x.atttypid) IN (VALUES
                               (%(archived_at)s::name, 'timestamptz'::regtype::oid),
                               (%(archived_by)s::name, 'uuid'::regtype::oid)))) AS archive_columns
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname || '.' || c.relname = a.relation
              AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
        ) AS found ON true
        WHERE (%(sources)s::text[] IS NULL
               OR coalesce(main.source, a.source) = ANY(%(sources)s::text[]))
          AND (a.dropped_at IS NULL OR %(dropped)s)
        ORDER BY a.period, a.part_of IS NOT NULL, a.relation
        """
    ),
)
_NAMED_SOURCES = Statement(
    "archives.sources",
    sql.SQL(
        """
        SELECT DISTINCT coalesce(parent.source, a.source) FROM housekeeping.archive_table a
        LEFT JOIN housekeeping.archive_table parent ON parent.relation = a.part_of
        WHERE a.dropped_at IS NULL ORDER BY 1
        """
    ),
)
_PARTS = Statement(
    "archives.parts",
    sql.SQL(
        """
        SELECT DISTINCT part.source FROM housekeeping.archive_table part
        JOIN housekeeping.archive_table main ON main.relation = part.part_of
        WHERE main.source = %(source)s ORDER BY 1
        """
    ),
)
_OID = Statement(
    "archives.oid_of_label",
    sql.SQL(
        """
        SELECT min(c.oid::bigint) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname || '.' || c.relname = %(label)s AND c.relkind IN ('r', 'p')
        HAVING count(*) = 1
        """
    ),
)
_DEPENDENTS = Statement(
    "archives.dependents",
    # What DROP without CASCADE would refuse for, and a partition, which it would drop without a word.
    sql.SQL(
        """
        SELECT pg_describe_object('pg_class'::regclass, r.ev_class, 0)
        FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
        WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
          AND d.refobjid = %(oid)s AND r.ev_class <> %(oid)s
        UNION
        SELECT pg_describe_object('pg_constraint'::regclass, con.oid, 0) FROM pg_constraint con
        WHERE con.contype = 'f' AND con.confrelid = %(oid)s AND con.conrelid <> %(oid)s
        UNION
        SELECT pg_describe_object('pg_class'::regclass, i.inhrelid, 0) FROM pg_inherits i
        WHERE i.inhparent = %(oid)s
        UNION
        SELECT pg_describe_object('pg_class'::regclass, i.inhparent, 0) FROM pg_inherits i
        WHERE i.inhrelid = %(oid)s
        UNION
        SELECT pg_describe_object('pg_proc'::regclass, d.objid, 0) FROM pg_depend d
        WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_class'::regclass
          AND d.refobjid = %(oid)s AND d.deptype = 'n'
        ORDER BY 1
        """
    ),
)
_DONE = Statement(
    "archives.done_by_run",
    sql.SQL(
        """
        SELECT w.walk, w.lower, a.period, w.counts, a.exported ->> 'manifest'
        FROM housekeeping.run_window w
        LEFT JOIN housekeeping.archive_table a ON a.relation = w.lower
        WHERE w.run_id = %(run_id)s::uuid ORDER BY w.number
        """
    ),
)
_NOTE_EXPORT = Statement(
    "archives.note_export",
    sql.SQL(
        """
        UPDATE housekeeping.archive_table
        SET exported = %(exported)s::jsonb || CASE
                -- a month that was exported, dropped, and made again by late rows
                WHEN exported ->> 'manifest' <> %(manifest)s
                    THEN jsonb_build_object('earlier', exported)
                -- the same export, found again by a later attempt
                ELSE jsonb_strip_nulls(jsonb_build_object('earlier', exported -> 'earlier')) END,
            exported_at = clock_timestamp()
        WHERE relation = %(relation)s AND dropped_at IS NULL
        """
    ),
)


@dataclass(frozen=True, kw_only=True)
class ArchivedTable:
    """A row of the ledger's archive_table, and the table it speaks of as the catalog has it."""

    relation: str
    source: str
    part_of: str | None
    main_source: str
    """the source of the table it is part of, or its own: whose lease and fence guard it"""
    period: str
    policy: str
    key_columns: tuple[str, ...]
    rows: int
    made_by: str
    made_at: datetime
    last_row_at: datetime | None
    exported: Mapping[str, Any] | None
    exported_at: datetime | None
    dropped_at: datetime | None
    oids: tuple[int, ...]
    """tables of that label; more than one where names hold dots"""
    schema: str
    name: str
    kind: str
    archive_columns: int
    may_drop: bool
    rows_hidden: bool
    owner: str
    bytes: int

    @property
    def is_there(self) -> bool:
        return bool(self.oids)

    @property
    def oid(self) -> int:
        return self.oids[0]

    @property
    def identifier(self) -> sql.Identifier:
        return identifier(self.schema, self.name)

    @property
    def ledger(self) -> dict[str, Any]:
        """Return what tells this table from others that had its name, as JSON takes it."""
        last = self.last_row_at.isoformat() if self.last_row_at else None
        return {
            "policy": self.policy,
            "made_by": self.made_by,
            "made_at": self.made_at.isoformat(),
            "last_row_at": last,
        }

    @property
    def exportable(self) -> Exportable:
        """Return what an export has to know of it."""
        return Exportable(
            oid=self.oid,
            schema=self.schema,
            name=self.name,
            source=self.source,
            key_columns=self.key_columns,
            ledger=self.ledger,
            rows=self.rows,
            part_of=self.part_of,
            period=self.period,
        )

    def fault(self) -> str | None:
        """Say why the table is not surely ours, or is closed to us; None when it is neither."""
        two = len((ARCHIVED_AT, ARCHIVED_BY))
        faults = {
            f"{len(self.oids)} tables have that name written out": len(self.oids) > 1,
            "what has that name is no ordinary table": self.kind != "r",
            f"it has no columns {ARCHIVED_AT} and {ARCHIVED_BY}: another table has taken the name": (
                self.archive_columns != two
            ),
            "row-level security hides its rows from us": self.rows_hidden,
            f"it belongs to {self.owner}: only its owner may drop it": not self.may_drop,
        }
        return next((told for told, wrong in faults.items() if wrong), None)


def known_tables(
    connection: Connection, sources: Iterable[str] | None = None, *, dropped: bool = False
) -> list[ArchivedTable]:
    """Return the ledger's dated tables, oldest period first, each main table before its parts.

    `sources`: labels of the tables that were archived; their child tables' rows come along.
    `dropped`: also those that are gone.
    """
    labels = None if sources is None else list(sources)
    found = execute(
        connection,
        _KNOWN,
        sources=labels,
        dropped=dropped,
        archived_at=ARCHIVED_AT,
        archived_by=ARCHIVED_BY,
    )
    return [_table(row) for row in found]


def _table(row: Any) -> ArchivedTable:
    return ArchivedTable(
        relation=row[0],
        source=row[1],
        part_of=row[2],
        main_source=row[3],
        period=row[4],
        policy=row[5],
        key_columns=tuple(row[6]),
        rows=int(row[7]),
        made_by=row[8],
        made_at=row[9],
        last_row_at=row[10],
        exported=row[11],
        exported_at=row[12],
        dropped_at=row[13],
        oids=tuple(int(oid) for oid in row[14] or ()),
        schema=row[15] or "",
        name=row[16] or "",
        kind=row[17] or "",
        archive_columns=row[18],
        may_drop=row[19],
        rows_hidden=row[20],
        owner=row[21] or "",
        bytes=int(row[22]),
    )


def main_sources(connection: Connection) -> list[str]:
    """Return the labels of tables whose rows dated tables hold; children's go with their parent's."""
    return [str(label) for label in execute(connection, _NAMED_SOURCES).scalars()]


def oid_of_label(connection: Connection, label: str) -> int | None:
    """Return the table a label means; None where there is none, or more than one."""
    found = execute(connection, _OID, label=label).scalar()
    return None if found is None else int(found)


def dependents(connection: Connection, oid: int) -> list[str]:
    """Return what depends on a table: views, foreign keys, inheriting tables, functions."""
    return [str(told) for told in execute(connection, _DEPENDENTS, oid=oid).scalars()]


def note_export(connection: Connection, relation: str, exported: Mapping[str, Any]) -> None:
    """Write into the ledger where a table was exported to; `manifest` in it is the address."""
    execute(
        connection,
        _NOTE_EXPORT,
        relation=relation,
        exported=json.dumps(exported),
        manifest=exported["manifest"],
    )


def done_by(connection: Connection, run_id: UUID) -> list[dict[str, Any]]:
    """Return what a run's committed windows did to dated tables: an entry a table."""
    entries: dict[str, dict[str, Any]] = {}
    for walk, relation, period, counts, manifest in execute(connection, _DONE, run_id=str(run_id)):
        entry = entries.setdefault(relation, {"table": relation, "period": period, "done": ""})
        entry["done"] = "dropped" if walk == "drop" else "exported"
        entry["rows"] = counts.get(f"rows_{entry['done']}", 0)
        if manifest is not None:
            entry["exported_to"] = manifest
    return list(entries.values())
