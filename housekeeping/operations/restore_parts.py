"""What is to be put back: a dated table that is still there, or an export of one, each into its source.

Rows of a main table come before those of its child tables, which refer to them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from housekeeping.policies.archives import RestorePolicy
from housekeeping.policies.errors import NoSuchArchive, RestoreRefused
from housekeeping.stores.files.exports import Exports, exports_beside
from housekeeping.stores.files.manifest import Manifest
from housekeeping.stores.files.place import shown, split
from housekeeping.stores.postgres.archives.columns import Destination, destination
from housekeeping.stores.postgres.archives.known import ArchivedTable, known_tables, oid_of_label
from housekeeping.stores.postgres.archives.rows import text_columns, write_canonical_text
from housekeeping.stores.postgres.catalog import describe_table
from housekeeping.stores.postgres.connection import place
from housekeeping.stores.postgres.ledger_schema import ledger_missing
from housekeeping.stores.postgres.names import did_you_mean


@dataclass(frozen=True)
class Part:
    """One table's archived rows, and where they go back to. Exactly one of `live` and `manifest`."""

    relation: str
    rows: int
    to: Destination
    live: ArchivedTable | None = None
    manifest: Manifest | None = None
    exports: Exports | None = None


@dataclass(frozen=True)
class Origin:
    """Where archived rows lie: before it is known whether they can go back."""

    live: tuple[ArchivedTable, ...] = ()
    exported: tuple[Manifest, ...] = ()
    exports: Exports | None = None
    warnings: tuple[str, ...] = ()


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
    known = [] if ledger_missing(connection) else known_tables(connection, dropped=True)
    named = _called(policy.relation, known)
    if named.dropped_at is not None:
        return _dropped(policy, named)
    if (fault := named.fault() if named.is_there else "there is no such table") is not None:
        raise RestoreRefused(what=named.relation, reason=fault)
    parts = [t for t in known if t.part_of == named.relation and t.is_there and not t.dropped_at]
    return Origin((named, *parts), warnings=_earlier(named))


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
        to = _into(connection, policy, manifest.source, columns, manifest.key_columns)
        parts.append(
            Part(manifest.relation, manifest.rows, to, manifest=manifest, exports=origin.exports)
        )
    return tuple(parts)


def _into(
    connection: Connection,
    policy: RestorePolicy,
    source: str,
    columns: dict[str, str],
    key: Sequence[str],
) -> Destination:
    oid = oid_of_label(connection, source)
    if oid is None:
        reason = f"its source {source} is not there any more; make that table first"
        raise RestoreRefused(what=policy.works_on, reason=reason)
    facts = describe_table(connection, oid)
    return destination(connection, facts, columns, key, drop_columns=policy.drop_columns)


def _called(name: str, known: Sequence[ArchivedTable]) -> ArchivedTable:
    """Return the table a user means: by its label, or by its name where only one has it."""
    found = [table for table in known if table.relation == name]
    found = found or [table for table in known if table.relation.partition(".")[2] == name]
    if len(found) == 1:
        return found[0]
    if found:
        told = ", ".join(table.relation for table in found)
        raise NoSuchArchive(what=name, reason=f"more than one is called so: {told}")
    labels = [table.relation for table in known]
    names = [label.partition(".")[2] for label in labels]
    near = did_you_mean(name, labels if "." in name else names)
    raise NoSuchArchive(what=name, reason=f"the ledger knows no archived table of that name.{near}")


def _dropped(policy: RestorePolicy, table: ArchivedTable) -> Origin:
    on = f"it was dropped on {table.dropped_at:%Y-%m-%d}"
    if table.exported is None:
        raise RestoreRefused(what=table.relation, reason=f"{on}, without an export")
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
    main = exports.manifest(name)
    children = tuple(exports.manifest(child) for child in main.children)
    return Origin((), (main, *children), exports)


def _earlier(table: ArchivedTable) -> tuple[str, ...]:
    """Tell of exports of the same month, from before it was dropped and made again."""
    told = []
    exported = table.exported
    if exported is not None and table.dropped_at is not None:
        exported = exported.get("earlier")
    while exported is not None:
        told.append(
            f"{exported['rows']:,} more rows of {table.relation} were exported to "
            f"{exported['manifest']}"
        )
        exported = exported.get("earlier")
    return tuple(told)
