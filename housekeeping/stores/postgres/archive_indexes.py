"""Indexes of the dated tables: built once a run has moved all there was, never while rows arrive."""

import hashlib
from dataclasses import replace
from datetime import timedelta

from psycopg2 import sql
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from housekeeping.policies.archive import ArchiveIndex
from housekeeping.policies.purge import PurgePolicy
from housekeeping.stores.postgres.archive_tables import known_tables
from housekeeping.stores.postgres.conditions import sentence
from housekeeping.stores.postgres.connection import guarded
from housekeeping.stores.postgres.names import IDENTIFIER_BYTES
from housekeeping.stores.postgres.preflight import Target
from housekeeping.stores.postgres.statement import Statement, execute, identifier

# Nobody but readers uses a dated table, and a plain build lets them read, however long it takes.
_BUILD_WITHIN = timedelta(hours=2)

_THERE = Statement(
    "archive.index_there",
    sql.SQL(
        """
        SELECT EXISTS (SELECT FROM pg_class i JOIN pg_namespace n ON n.oid = i.relnamespace
                       WHERE i.relname = %(index)s AND n.nspname = %(schema)s)
        """
    ),
)


def build_indexes(connection: Connection, policy: PurgePolicy, target: Target) -> tuple[str, ...]:
    """Build what the policy wants on every dated table of its that lacks it; return warnings.

    An index that can't be built is no reason to fail a run whose rows have arrived.
    """
    if target.layout is None or not target.layout.indexes:
        return ()
    pace = replace(policy.pace, lock_timeout=timedelta(seconds=2), batch_target=_BUILD_WITHIN / 4)
    with guarded(connection, policy.pace, reading=True, any_plan=True):
        tables = known_tables(connection, policy.name, target.layout)
    warnings = []
    for schema, name, part in tables:
        own = part.source.name if part.suffix else None
        for index in target.layout.indexes:
            if index.table != own:
                continue
            try:
                with guarded(connection, pace, any_plan=True):
                    _build(connection, schema, name, index)
            except DBAPIError as error:
                warnings.append(
                    f"an index of {schema}.{name} could not be built: {sentence(error)}"
                )
    return tuple(warnings)


def index_name(table: str, columns: tuple[str, ...]) -> str:
    """Return `IX_TABLE_COLUMN`; where that is too long, its beginning and a hash, so that two long
    names never become one.
    """
    name = "_".join(("IX", table, *columns))
    if len(name.encode()) <= IDENTIFIER_BYTES:
        return name
    tail = "_" + hashlib.sha256(name.encode()).hexdigest()[:8]
    return name.encode()[: IDENTIFIER_BYTES - len(tail)].decode(errors="ignore") + tail


def _build(connection: Connection, schema: str, table: str, index: ArchiveIndex) -> None:
    name = index_name(table, index.columns)
    if execute(connection, _THERE, index=name, schema=schema).scalar_one():
        return
    body = sql.SQL("CREATE INDEX {} ON {} ({})").format(
        identifier(name),
        identifier(schema, table),
        sql.SQL(", ").join(identifier(column) for column in index.columns),
    )
    execute(connection, Statement("archive.index", body))
