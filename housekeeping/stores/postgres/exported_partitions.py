"""Where detached partitions were exported to before they were dropped, as the ledger has it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.stores.postgres.archive_layout import row_key
from housekeeping.stores.postgres.archives.exportable import Exportable
from housekeeping.stores.postgres.detached_ledger import Detached, partitions_known
from housekeeping.stores.postgres.names import quoted
from housekeeping.stores.postgres.statement import Statement, execute

_NOTE = Statement(
    "ledger.partition_exported",
    sql.SQL(
        """
        WITH before AS (SELECT id, exported FROM housekeeping.detached_partition
                        WHERE id = %(id)s FOR UPDATE)
        UPDATE housekeeping.detached_partition AS d
        SET exported = %(exported)s::jsonb || CASE
                -- somebody wrote to it after an export, so that it was exported again
                WHEN before.exported ->> 'manifest' <> %(manifest)s
                    THEN jsonb_build_object('earlier', before.exported)
                ELSE jsonb_strip_nulls(
                    jsonb_build_object('earlier', before.exported -> 'earlier')) END,
            exported_at = clock_timestamp()
        FROM before WHERE d.id = before.id
        RETURNING before.exported ->> 'manifest' IS DISTINCT FROM %(manifest)s
        """
    ),
)
_HIDDEN = Statement(
    "ledger.partition_hidden",
    sql.SQL("SELECT row_security_active(oid) FROM pg_class WHERE oid = %(oid)s"),
)
_KNOWN = Statement(
    "ledger.known_partitions",
    # As JSON: a ledger no run has brought up to date yet has no column for exports.
    sql.SQL(
        """
        SELECT DISTINCT ON (d.relation_schema, d.relation_name)
               d.relation_schema, d.relation_name, d.parent_schema, d.parent_name, d.bounds,
               d.dropped_at, to_jsonb(d) -> 'exported',
               coalesce((
                   SELECT jsonb_agg(to_jsonb(o) -> 'exported' ORDER BY o.id DESC)
                   FROM housekeeping.detached_partition o
                   WHERE o.relation_schema = d.relation_schema AND o.relation_name = d.relation_name
                     AND o.id < d.id AND o.state = 'dropped'
                     AND jsonb_typeof(to_jsonb(o) -> 'exported') = 'object'), '[]')
        FROM housekeeping.detached_partition d WHERE d.state IN ('detached', 'dropped')
        ORDER BY d.relation_schema, d.relation_name, d.id DESC
        """
    ),
)


@dataclass(frozen=True)
class RetiredPartition:
    """The newest partition of a name that we took out of its table."""

    schema: str
    name: str
    parent_schema: str
    parent_name: str
    bounds: str
    dropped_at: datetime | None
    """None: it is still there, as a table of its own"""
    exported: Mapping[str, Any] | None
    exported_before: Sequence[Mapping[str, Any]] = ()
    """others of that name, which were exported and dropped before this one; newest first"""

    @property
    def relation(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def source(self) -> str:
        """Return the table its rows came from."""
        return f"{self.parent_schema}.{self.parent_name}"

    @property
    def attaching(self) -> str:
        """Return the statement that takes it back."""
        parent = quoted(self.parent_schema, self.parent_name)
        return (
            f"ALTER TABLE {parent} ATTACH PARTITION {quoted(self.schema, self.name)} {self.bounds}"
        )


def exportable(connection: Connection, detached: Detached) -> Exportable:
    """Return what an export has to know of a detached partition; inside a transaction."""
    return Exportable(
        oid=detached.oid,
        schema=detached.schema,
        name=detached.name,
        source=".".join(detached.parent),
        key_columns=row_key(connection, detached.oid),
        ledger={
            "policy": detached.policy,
            "made_by": detached.run_id,
            "made_at": detached.wanted_at,
            "partition": detached.id,
        },
        parent=detached.parent,
        bounds=detached.bounds,
    )


def note_partition_export(connection: Connection, id_: int, exported: Mapping[str, Any]) -> bool:
    """Write down where a partition was exported to; `manifest` in it is the address.

    Returns False where the ledger knew of this very export.
    """
    told, manifest = json.dumps(exported), exported["manifest"]
    return bool(execute(connection, _NOTE, id=id_, exported=told, manifest=manifest).scalar())


def rows_hidden(connection: Connection, detached: Detached) -> bool:
    """Whether row-level security keeps rows of a partition from us: an export would lack them."""
    return bool(execute(connection, _HIDDEN, oid=detached.oid).scalar())


def retired_partitions(connection: Connection) -> list[RetiredPartition]:
    """Return the partitions that we detached, and may have dropped; the newest of each name."""
    if not partitions_known(connection):
        return []
    return [RetiredPartition(*row) for row in execute(connection, _KNOWN)]
