"""One table to a file: read from one snapshot, written, read back, known to the ledger."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from housekeeping.policies.policy import Policy
from housekeeping.stores.files.exports import Exports, Watch
from housekeeping.stores.files.manifest import ColumnFacts, FileFacts, Manifest, PartitionFacts
from housekeeping.stores.files.row_text import RowSum
from housekeeping.stores.postgres.archives.dropping import require_complete
from housekeeping.stores.postgres.archives.exportable import Exportable
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

_PATIENCE = timedelta(seconds=1)  # as long as somebody who alters the table waits for our reading


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


def outlasting(seconds: float) -> str:
    """Say why an export was given up when the run's time was over."""
    return (
        f"its export was not done after {seconds:.0f} s, when the run's time was over. It begins anew "
        "each time: give it a longer time_budget, or longer hours"
    )


class TextUnreadable(Exception):
    """A table holds text that can't be put into a file as it is; the message says why, without it."""


@dataclass(frozen=True)
class TableExport:
    """Exports tables of one run to one place."""

    connection: Connection
    policy: Policy
    exports: Exports
    run_id: str
    watch: Watch
    objection: Callable[[], object]

    def make(self, table: Exportable, children: tuple[str, ...]) -> Exported:
        """Export a table, or find that it has been. `children`: manifests of its parts, beside it.

        Raises Kept when a dated table does not hold what the ledger says, ExportDamaged when a file is
        not what was written, TextUnreadable, ExportUnreachable, and whatever `watch` raises.
        """
        try:
            return self._make(table, children)
        except UnicodeError as error:
            raise TextUnreadable(self._unreadable(error)) from None  # it would hold a row's text

    def _make(self, table: Exportable, children: tuple[str, ...]) -> Exported:
        start = 1
        while True:
            found = self.exports.found(table.relation, dict(table.ledger), start)
            made, held = self._read(table, children, found.manifest, found.number)
            if found.manifest is None:
                manifest, name = self.exports.publish(made, found.number, self.watch)
                return Exported(manifest, name, held, written=True)
            # A child's rows may have got another export since: the old manifest would not lead there.
            leads_there = set(made.children) <= set(found.manifest.children)
            if leads_there and made.same_rows_as(found.manifest):
                self.exports.check(found.manifest, self.watch)
                return Exported(found.manifest, found.name, held, written=False)
            start = found.number + 1  # rows came or went since: it stays, another is written

    def _unreadable(self, error: UnicodeError) -> str:
        """Say why a table's text can't be exported; not which, for that would be row data."""
        if isinstance(error, UnicodeEncodeError) and self.exports.format == "parquet":
            return (
                "it holds bytes that are not UTF-8, which Parquet can't hold as text; give "
                'the format "csv" or "jsonl", which keep every byte'
            )
        encoding = error.encoding if isinstance(error, UnicodeDecodeError) else "its encoding"
        return (
            f"it holds text that can't be read as {encoding}, so it can't be exported. Correct "
            "it, or drop the table by hand"
        )

    def note(self, table: ArchivedTable, made: Exported, ledger: WindowLedger, number: int) -> None:
        """Tell the ledger, in a transaction that a newer run's fence forbids."""
        at = self.exports.place.at
        with guarded(self.connection, self.policy.pace, any_plan=True):
            note_export(self.connection, table.relation, self.told(made))
            rows = made.manifest.rows if made.written else 0
            ledger.record(
                self.connection,
                number=number,
                walk="export",
                bounds=(table.relation, at(made.name)),
                counts=Counter({"tables_exported": int(made.written), "rows_exported": rows}),
                rows=0,
            )

    def told(self, made: Exported) -> dict[str, Any]:
        """Return what the ledger keeps of an export."""
        at = self.exports.place.at
        return {
            "manifest": at(made.name),
            "file": at(made.manifest.file.name),
            "format": made.manifest.file.format,
            "rows": made.manifest.rows,
            "rows_sha256": made.manifest.rows_sha256,
            "run": made.manifest.exported_by_run,
        }

    def _read(
        self,
        table: Exportable,
        children: tuple[str, ...],
        earlier: Manifest | None,
        number: int,
    ) -> tuple[Manifest, Fingerprint]:
        """Read the table once: to a file, or where one is there already, only to sum its rows up."""
        watch = BlockWatch(self.policy.database_url, self.connection, _PATIENCE, self.objection)
        with watch, watch.window(), snapshot(self.connection):
            held = fingerprint(self.connection, table.identifier, hashed=True)
            if table.rows is not None:
                require_complete(table.rows, held)
            draft = self._draft(table, children)
            batches = text_rows(self.connection, table.identifier, draft.names)
            if earlier is None:
                return self.exports.write(draft, batches, number, self.watch), held
            total = RowSum()
            for batch in batches:
                self.watch()
                total.add(batch)
            return replace(draft, rows=total.rows, rows_sha256=total.sha256), held

    def _draft(self, table: Exportable, children: tuple[str, ...]) -> Manifest:
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
            partition=_partition(table),
        )


def _partition(table: Exportable) -> PartitionFacts | None:
    if table.parent is None:
        return None
    return PartitionFacts(
        schema=table.schema,
        name=table.name,
        parent_schema=table.parent[0],
        parent_name=table.parent[1],
        bounds=table.bounds,
    )
