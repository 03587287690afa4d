"""A partitioned table: whole partitions where every row in them expired, rows in the others."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from housekeeping.operations.looking import Looked
from housekeeping.operations.partitions.detachment import Detachment
from housekeeping.operations.partitions.exporting import PartitionExport
from housekeeping.operations.partitions.retirement import Retirement
from housekeeping.operations.partitions.steps import Steps
from housekeeping.policies.result import StopReason
from housekeeping.stores.postgres.names import quoted
from housekeeping.stores.postgres.preflight import Target
from housekeeping.stores.postgres.window_ledger import WindowLedger

WalkLeaf = Callable[[Target, WindowLedger], StopReason]


@dataclass(frozen=True)
class PartitionedPurge:
    """One run on a partitioned table, under the lease and the fence of the whole."""

    steps: Steps
    look: Callable[[], Looked]
    """what the table is like now; opens its own transaction"""
    started: Callable[[Looked], None]
    export: PartitionExport | None = None

    def run(self, walk: WalkLeaf) -> StopReason:
        """Look after what earlier runs detached, detach what expired, then take rows leaf by leaf."""
        looked = self.look()
        if looked.left_alone:
            self.started(looked)
            return StopReason.EXHAUSTED
        if (reason := Retirement(self.steps, self.export).run()) is not None:
            return reason
        looked = self.look()  # what was pending is gone now
        self.started(looked)
        self.steps.warnings += self._others_pending(looked)
        if (reason := Detachment(self.steps, looked.tree).run(looked.whole)) is not None:
            return reason
        for leaf in looked.leaves:
            reason = walk(leaf, replace(self.steps.ledger, part=leaf.facts.label))
            if reason is not StopReason.EXHAUSTED:
                return reason
        return StopReason.EXHAUSTED

    def _others_pending(self, looked: Looked) -> Iterator[str]:
        ours = {detached.oid for detached in self.steps.seen()}
        for node in looked.tree.pending:
            if node.oid not in ours:
                parent = looked.tree.nodes[node.parent]
                yield (
                    f"somebody's detaching of {node.label} was cut short; its rows are out of sight. "
                    f"ALTER TABLE {quoted(parent.schema, parent.name)} DETACH PARTITION "
                    f"{quoted(node.schema, node.name)} FINALIZE"
                )
