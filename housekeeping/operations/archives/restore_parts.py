"""What is to be put back: a dated table that is still there, or an export of one or of a partition,
each into the table its rows came from.

Rows of a main table come before those of its child tables, which refer to them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import Connection

from housekeeping.operations.archives.restorable import called
from housekeeping.policies.archives import RestorePolicy
from housekeeping.policies.errors import ExportUnreachable, RestoreRefused
from housekeeping.policies.table import TableName
from housekeeping.stores.files.exports import Exports, exports_beside
from housekeeping.stores.files.manifest import Manifest, PartitionFacts
from housekeeping.stores.files.place import shown, split
from housekeeping.stores.postgres.archives.columns import Destination, destination
from housekeeping.stores.postgres.archives.known import ArchivedTable, known_tables, oid_of_label
from housekeeping.stores.postgres.archives.routing import Routes, root_of, routes_of
from housekeeping.stores.postgres.archives.rows import text_columns, write_canonical_text
from housekeeping.stores.postgres.catalog import describe_table, find_table
from housekeeping.stores.postgres.connection import place
from housekeeping.stores.postgres.exported_partitions import RetiredPartition, retired_partitions
from housekeeping.stores.postgres.ledger_schema import ledger_missing
from housekeeping.stores.postgres.names import quoted
from housekeeping.stores.postgres.table_locks import Touched


class Dropped(Protocol):
    """A table that was dropped, as the ledger has it."""

    @property
    def relation(self) -> str: ...

    @property
    def dropped_at(self) -> datetime | None: ...

    @property
    def exported(self) -> Mapping[str, Any] | None: ...


@dataclass(frozen=True)
class Part:
    """One table's archived rows, and where they go back to. Exactly one of `live` and `manifest`."""

    relation: str
    rows: int
    to: Destination
    live: ArchivedTable | None = None
    manifest: Manifest | None = None
    exports: Exports | None = None
    routes: Routes | None = None
    """of an exported partition: where the table it was detached from has room for its rows"""

    @property
    def places(self) -> list[int]:
        """Return where a row of the export has the values of the columns to be filled."""
        assert self.manifest is not None
        return [self.manifest.names.index(column.name) for column in self.to.columns]

    def without_room(self) -> RestoreRefused:
        """Return the error that tells what to run so that a partition's rows have somewhere to go."""
        assert self.manifest is not None
        assert self.manifest.partition is not None
        was = self.manifest.partition
        return RestoreRefused(
            what=self.relation,
            reason=f"no partition of {self.manifest.source} would take its rows. Make it first:\n"
            f"CREATE TABLE {quoted(was.schema, was.name)} PARTITION OF "
            f"{quoted(was.parent_schema, was.parent_name)} {was.bounds};",
        )

    @property
    def touched(self) -> Touched:
        """Tables whose locks keep its rows from coming back."""
        archive = () if self.live is None else (self.live.relation,)
        return Touched(
            (self.to.facts.label, *archive),
            tuple(f"{parent.schema}.{parent.table}" for parent in self.to.parents),
        )


@dataclass(frozen=True)
class Origin:
    """Where archived rows lie: before it is known whether they can go back."""

    live: tuple[ArchivedTable, ...] = ()
    exported: tuple[Manifest, ...] = ()
    exports: Exports | None = None
    warnings: tuple[str, ...] = ()

    @property
    def touched(self) -> Touched:
        """Tables whose locks keep us from looking at it and at where its rows go."""
        live = [label for table in self.live for label in (table.relation, table.source)]
        return Touched((*live, *(manifest.source for manifest in self.exported)))


def origin_of(connection: Connection, policy: RestorePolicy) -> Origin:
    """Find what a policy names: in the ledger, or at an address. Inside a reading transaction.

    Raises RestoreRefused, ExportUnreachable, ExportDamaged.
    """
    if policy.manifest_url is not None:
        origin = _exported(*exports_beside(policy.manifest_url))
        exported_from, here = origin.exported[0].database, place(policy.database_url)
        elsewhere = f"exported from {exported_from}; its rows go to {here}"
        return replace(origin, warnings=(elsewhere,) if exported_from != here else ())
    assert policy.relation is not None
    known: list[ArchivedTable] = []
    retired: list[RetiredPartition] = []
    if not ledger_missing(connection):
        known, retired = known_tables(connection, dropped=True), retired_partitions(connection)
    named = called(policy.relation, [*known, *retired])
    if isinstance(named, RetiredPartition):
        return _retired(policy, named)
    if named.dropped_at is not None:
        return _dropped(policy, named)
    if (fault := named.fault() if named.is_there else "there is no such table") is not None:
        raise RestoreRefused(what=named.relation, reason=fault)
    parts = [t for t in known if t.part_of == named.relation]
    live = [t for t in parts if t.is_there and not t.dropped_at]
    return _with_dropped_parts(policy, Origin((named, *live), warnings=_earlier(named)), parts)


def parts_of(connection: Connection, policy: RestorePolicy, origin: Origin) -> tuple[Part, ...]:
    """Match archived tables with their sources, parents first; inside a reading transaction.

    Raises RestoreRefused for what would lose a value, or could not be inserted.
    """
    write_canonical_text(connection)  # types are called as the manifests call them
    parts = []
    for table in origin.live:
        columns = {column.name: column.type for column in text_columns(connection, table.oid)}
        to = _into(connection, policy, table.source, columns, table.key_columns)
        parts.append(Part(table.relation, table.rows, to, live=table))
    for manifest in origin.exported:
        columns = {column.name: column.type for column in manifest.columns}
        oid, routes = None, None
        if manifest.partition is not None:
            oid, routes = _tree_of(connection, manifest.partition)
        to = _into(connection, policy, manifest.source, columns, manifest.key_columns, oid)
        rows, exports = manifest.rows, origin.exports
        parts.append(
            Part(manifest.relation, rows, to, manifest=manifest, exports=exports, routes=routes)
        )
    return tuple(parts)


def _tree_of(connection: Connection, was: PartitionFacts) -> tuple[int | None, Routes | None]:
    """Return the top of the tree a partition was in, whose rows find their own way down, and where
    there is room for them below the table it was detached from.
    """
    parent = find_table(connection, TableName(was.parent_name, was.parent_schema))
    if parent is None:
        return None, None
    partitioned = describe_table(connection, parent).kind == "p"
    routes = routes_of(connection, parent, was.bounds) if partitioned else None
    return root_of(connection, parent), routes


def _into(
    connection: Connection,
    policy: RestorePolicy,
    source: str,
    columns: dict[str, str],
    key: Sequence[str],
    oid: int | None = None,
) -> Destination:
    """`oid`: of the table, where its label need not be looked up."""
    oid = oid_of_label(connection, source) if oid is None else oid
    if oid is None:
        reason = f"its source {source} is not there any more; make that table first"
        raise RestoreRefused(what=policy.works_on, reason=reason)
    facts = describe_table(connection, oid)
    return destination(connection, facts, columns, key, drop_columns=policy.drop_columns)


def _retired(policy: RestorePolicy, partition: RetiredPartition) -> Origin:
    if partition.dropped_at is None:
        raise RestoreRefused(
            what=partition.relation,
            reason="it was detached and is still there. Take it back as it is, once the policy that "
            f"detached it keeps its rows for longer:\n{partition.attaching};",
        )
    return _dropped(policy, partition)


def _with_dropped_parts(
    policy: RestorePolicy, origin: Origin, parts: Sequence[ArchivedTable]
) -> Origin:
    """Add the exports of child tables' rows that were dropped while their month stayed."""
    (main, *_) = origin.live
    for part in parts:
        if part.dropped_at is None or part.dropped_at < main.made_at:
            continue  # it is there, or belonged to an earlier table of that month
        try:
            gone = _dropped(policy, part)
        except RestoreRefused as refused:
            origin = replace(origin, warnings=(*origin.warnings, refused.message))
            continue
        origin = replace(
            origin,
            exported=(*origin.exported, *gone.exported),
            exports=gone.exports,
            warnings=(*origin.warnings, *gone.warnings),
        )
    return origin


def _dropped(policy: RestorePolicy, table: Dropped) -> Origin:
    on = f"it was dropped on {table.dropped_at:%Y-%m-%d}"
    if table.exported is None:
        told = "; ".join((f"{on}, without an export", *_earlier(table)))
        raise RestoreRefused(what=table.relation, reason=told)
    folder, name = split(str(table.exported["manifest"]))
    for known in policy.places:
        if shown(known.url).rstrip("/") == folder.rstrip("/"):
            origin = _exported(Exports(known), name)
            return Origin((), origin.exported, origin.exports, _earlier(table))
    raise RestoreRefused(
        what=table.relation,
        reason=f"{on} and exported to {table.exported['manifest']}, where no export_to of this "
        "installation leads. Give that address, with a password where it needs one",
    )


def _exported(exports: Exports, name: str) -> Origin:
    if not exports.place.exists(name):
        reason = "there is no such file; is its folder mounted, and the name right?"
        raise ExportUnreachable(url=exports.place.at(name), reason=reason)
    main = exports.manifest(name)
    children = tuple(exports.manifest(child) for child in main.children)
    return Origin((), (main, *children), exports)


def _earlier(table: Dropped) -> tuple[str, ...]:
    """Tell of other exports of the same name, from before it was dropped and made again, or changed."""
    told = []
    newest = table.exported
    if newest is not None and table.dropped_at is not None:
        newest = newest.get("earlier")
    before = table.exported_before if isinstance(table, RetiredPartition) else ()
    for each in (newest, *before):
        exported = each
        while exported is not None:
            told.append(
                f"an earlier {table.relation} was exported too, with {exported['rows']:,} rows, to "
                f"{exported['manifest']}"
            )
            exported = exported.get("earlier")
    return tuple(told)
