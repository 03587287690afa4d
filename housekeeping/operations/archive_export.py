"""One dated table to a file: read from one snapshot, written, read back, known to the ledger."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from sqlalchemy import Connection

from housekeeping.policies.policy import Policy
from housekeeping.stores.files.exports import Exports, Watch
from housekeeping.stores.files.manifest import ColumnFacts, FileFacts, Manifest
from housekeeping.stores.files.row_text import RowSum
from housekeeping.stores.postgres.archives.dropping import require_complete
from housekeeping.stores.postgres.archives.known import ArchivedTable, note_export
from housekeeping.stores.postgres.archives.rows import (
    Fingerprint,
    fingerprint,
    key_ends,
    snapshot,
    text_columns,
    text_rows,
)
from housekeeping.stores.postgres.blocking import BlockWatch
from housekeeping.stores.postgres.connection import guarded, place
from housekeeping.stores.postgres.window_ledger import WindowLedger

_PATIENCE_SECONDS = 1.0  # as long as somebody who alters the table waits for our reading


@dataclass(frozen=True)
class Exported:
    """An export that was read back and found good."""

    manifest: Manifest
    name: str
    """of the manifest's own file"""
    held: Fingerprint
    """of the table, in the snapshot the export was read from"""
    written: bool
    """False where an earlier attempt's export was found to be the same"""


@dataclass(frozen=True)
class TableExport:
    """Exports tables of one run to one place."""

    connection: Connection
    policy: Policy
    exports: Exports
    run_id: str
    watch: Watch
    objection: Callable[[], object]

    def make(self, table: ArchivedTable, children: tuple[str, ...]) -> Exported:
        """Export a table, or find that it has been. `children`: manifests of its parts, beside it.

        Raises Kept when the table does not hold what the ledger says, ExportDamaged when a file is
        not what was written, ExportUnreachable, and whatever `watch` raises.
        """
        start = 1
        while True:
            found = self.exports.found(table.relation, table.ledger, start)
            made, held = self._read(table, children, found.manifest, found.number)
            if found.manifest is None:
                manifest, name = self.exports.publish(made, found.number, self.watch)
                return Exported(manifest, name, held, written=True)
            if made.same_rows_as(found.manifest):
                self.exports.check(found.manifest, self.watch)
                return Exported(found.manifest, found.name, held, written=False)
            start = found.number + 1  # rows came or went since: it stays, another is written

    def note(self, table: ArchivedTable, made: Exported, ledger: WindowLedger, number: int) -> None:
        """Tell the ledger, in a transaction that a newer run's fence forbids."""
        at = self.exports.place.at
        told = {
            "manifest": at(made.name),
            "file": at(made.manifest.file.name),
            "format": made.manifest.file.format,
            "rows": made.manifest.rows,
            "rows_sha256": made.manifest.rows_sha256,
            "run": made.manifest.exported_by_run,
        }
        with guarded(self.connection, self.policy.pace, any_plan=True):
            note_export(self.connection, table.relation, told)
            rows = made.manifest.rows if made.written else 0
            ledger.record(
                self.connection,
                number=number,
                walk="export",
                bounds=(table.relation, at(made.name)),
                counts=Counter({"tables_exported": int(made.written), "rows_exported": rows}),
                rows=0,
            )

    def _read(
        self,
        table: ArchivedTable,
        children: tuple[str, ...],
        earlier: Manifest | None,
        number: int,
    ) -> tuple[Manifest, Fingerprint]:
        """Read the table once: to a file, or where one is there already, only to sum its rows up."""
        watching = BlockWatch(
            self.policy.database_url, self.connection, _PATIENCE_SECONDS, self.objection
        )
        with watching, snapshot(self.connection):
            held = fingerprint(self.connection, table.identifier, hashed=True)
            require_complete(table, held)
            draft = self._draft(table, children)
            batches = text_rows(self.connection, table.identifier, draft.names)
            if earlier is None:
                return self.exports.write(draft, batches, number, self.watch), held
            total = RowSum()
            for batch in batches:
                self.watch()
                total.add(batch)
            return replace(draft, rows=total.rows, rows_sha256=total.sha256), held

    def _draft(self, table: ArchivedTable, children: tuple[str, ...]) -> Manifest:
        columns = text_columns(self.connection, table.oid)
        first, last = key_ends(self.connection, table.identifier, table.key_columns)
        return Manifest(
            relation=table.relation,
            source=table.source,
            part_of=table.part_of,
            period=table.period,
            database=place(self.policy.database_url),
            columns=tuple(ColumnFacts(each.name, each.type, each.kind) for each in columns),
            key_columns=table.key_columns,
            rows=0,
            rows_sha256="",
            min_key=first,
            max_key=last,
            ledger=table.ledger,
            children=children,
            file=FileFacts(name="", format="", compression="", bytes=0, sha256=""),
            exported_at=datetime.now(UTC).isoformat(timespec="seconds"),
            exported_by_run=self.run_id,
        )
