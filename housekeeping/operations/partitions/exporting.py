"""A detached partition goes to a file before it is dropped."""

import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial

from housekeeping.operations.archives.export import (
    Exported,
    TableExport,
    TextUnreadable,
    outlasting,
)
from housekeeping.operations.partitions.steps import EXPORTED, NotDone, Steps
from housekeeping.policies.errors import ExportDamaged, ExportUnreachable
from housekeeping.policies.purge import PurgePolicy
from housekeeping.stores.files.exports import Exports
from housekeeping.stores.postgres.archives.exportable import Exportable
from housekeeping.stores.postgres.archives.rows import Fingerprint
from housekeeping.stores.postgres.connection import guarded
from housekeeping.stores.postgres.detached_ledger import Detached
from housekeeping.stores.postgres.exported_partitions import (
    exportable,
    note_partition_export,
    rows_hidden,
)


def left_to_another(detached: Detached, policy: PurgePolicy) -> str | None:
    """Say which policy has to export a partition before it is dropped, where it is not this one."""
    if not detached.to_export or policy.partitions.export is not None:
        return None
    if detached.policy == policy.name:  # it was told to export no longer
        return None
    return (
        f"policy {detached.policy} detached it and exports it before it is dropped, so it is left to "
        "that one; where that is gone, give this one partition_export_to"
    )


@dataclass
class PartitionExport:
    """Exports the detached partitions of one run to one place."""

    steps: Steps
    exports: Exports
    _reached: bool = field(default=False, init=False)
    _unreachable: str | None = field(default=None, init=False)
    """why none can be exported; asked once a run, as each time may take a store's own timeouts"""

    def make(self, detached: Detached) -> Fingerprint:
        """Export a partition, or find that it has been; return what the export holds.

        Raises NotDone where it has to stay, DBAPIError where somebody is in the way for too long.
        """
        if self._unreachable is not None:
            raise NotDone(self._unreachable)
        try:
            if not self._reached:
                self.exports.place.require()
                self._reached = True
            return self._make(detached)
        except ExportUnreachable as unreachable:
            self._unreachable = f"it could not be exported: {unreachable.message}"
            raise NotDone(self._unreachable) from unreachable
        except ExportDamaged as damaged:
            raise NotDone(f"it could not be exported: {damaged.message}") from damaged
        except TextUnreadable as unreadable:
            raise NotDone(str(unreadable)) from None

    def _heed(self, begun: float) -> None:
        self.steps.heed(late=outlasting(self.steps.clock.monotonic() - begun))

    def _make(self, detached: Detached) -> Fingerprint:
        steps, heed = self.steps, partial(self._heed, self.steps.clock.monotonic())
        export = TableExport(
            steps.connection,
            steps.policy,
            self.exports,
            str(steps.ledger.run_id),
            heed,
            steps.objection,
        )
        table = self._look(detached)
        made = steps.patiently(partial(export.make, table, ()), heed)
        self._note(detached, made, export)
        return made.held

    def _look(self, detached: Detached) -> Exportable:
        steps = self.steps
        with guarded(steps.connection, steps.policy.pace, reading=True, any_plan=True):
            if rows_hidden(steps.connection, detached):
                raise NotDone(
                    "row-level security hides its rows from us, and an export would lack them"
                )
            return exportable(steps.connection, detached)

    def _note(self, detached: Detached, made: Exported, export: TableExport) -> None:
        """Tell the ledger; an export counts once, in the run that tells of it first."""
        steps, counts, begun = self.steps, Counter({EXPORTED: 1}), time.perf_counter()
        with steps.writing():
            if not note_partition_export(steps.connection, detached.id, export.told(made)):
                return
            steps.record(detached.label, self.exports.place.at(made.name), counts, 0)
        steps.count(counts, 0, time.perf_counter() - begun)
