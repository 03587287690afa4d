"""Take partitions out of their table once all their rows have expired."""

from dataclasses import dataclass
from functools import partial

from sqlalchemy.exc import DBAPIError

from housekeeping.engine.partition_planning import WholePartition
from housekeeping.operations.partitions.steps import NotDone, Steps
from housekeeping.policies.errors import StoreUnreachable
from housekeeping.policies.result import StopReason
from housekeeping.stores.postgres.conditions import sentence
from housekeeping.stores.postgres.connection import guarded
from housekeeping.stores.postgres.detached_ledger import Detached, Fate, want_detached
from housekeeping.stores.postgres.detaching import (
    PartitionChanged,
    detach_concurrently,
    detach_plainly,
    in_the_way,
    still_attached,
)
from housekeeping.stores.postgres.partitions import Partition, PartitionTree


@dataclass(frozen=True)
class Detachment:
    """Detaches the whole partitions of a plan."""

    steps: Steps
    tree: PartitionTree

    def run(self, whole: tuple[WholePartition, ...]) -> StopReason | None:
        """Detach partitions, oldest first; where somebody is in the way, try again another time."""
        busy: set[int] = set()
        for each in whole:
            if (reason := self.steps.ready()) is not None:
                return reason
            label = each.partition.label
            if each.parent.oid in busy:
                why = "another partition of the same table could not be detached"
                self.steps.left(label, each.rows, why)
            elif self.steps.attempt(label, each.rows, partial(self._detach, each)) is not None:
                busy.add(each.parent.oid)
            if self.steps.leaving is not None:
                return self.steps.leaving
        return None

    def _detach(self, whole: WholePartition) -> None:
        whole = self.steps.counted(whole)
        default = self.tree.default_of(whole.parent)
        pending = any(node.parent == whole.parent.oid for node in self.tree.pending)
        if default is not None or pending:  # the server detaches none of these CONCURRENTLY
            self.steps.patiently(partial(self._plainly, whole, default))
        else:
            self._concurrently(whole)

    def _plainly(self, whole: WholePartition, default: Partition | None) -> None:
        steps, bounds = self.steps, whole.partition.bounds
        with steps.recording(whole.partition.label, bounds, steps.gone(whole.rows), whole.rows):
            detach_plainly(steps.connection, whole.parent, whole.partition, default)
            steps.confirmed(self._want(whole))

    def _concurrently(self, whole: WholePartition) -> None:
        with self.steps.writing():
            if not still_attached(self.steps.connection, whole.parent, whole.partition):
                raise PartitionChanged(table=whole.partition.label)
            wanted = self._want(whole)
        policy, failed = self.steps.policy, None
        try:
            with self.steps.unheld():
                detach_concurrently(
                    policy.database_url,
                    whole.parent,
                    whole.partition,
                    policy.pace,
                    self.steps.objection,
                )
        except DBAPIError as error:
            failed = sentence(error)
        except StoreUnreachable as error:  # too many connections, for it or for who watches it
            failed = error.message.splitlines()[0]
        self._conclude(whole, wanted, failed or "it is not detached")

    def _conclude(self, whole: WholePartition, wanted: int, why: str) -> None:
        """Find out from the catalog what came of it, whatever the connection said."""
        with guarded(self.steps.connection, self.steps.policy.pace, reading=True, any_plan=True):
            found = self._found(wanted)
            who = in_the_way(self.steps.connection, [whole.parent.oid, whole.partition.oid])
        if found.fate is Fate.UNCONFIRMED:
            self.steps.patiently(partial(self.steps.confirm, found))
            return
        if found.fate is Fate.PENDING:
            why += "; out of the table already, the next run finalizes it"
        elif found.fate is Fate.UNDONE:
            self.steps.settle(found, "withdrawn")
        raise NotDone(f"{why} ({who})" if who else why)

    def _found(self, wanted: int) -> Detached:
        (found,) = self.steps.look(wanted)
        return found

    def _want(self, whole: WholePartition) -> int:
        return want_detached(
            self.steps.connection,
            self.steps.ledger,
            self.steps.policy.name,
            whole.parent,
            whole.partition,
            whole.upper,
            whole.rows,
            whole.bytes,
            to_export=self.steps.policy.partitions.export is not None,
        )
