"""A partitioned table: whole partitions where every row in them expired, rows in the others."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from housekeeping.engine.partition_planning import PartitionPlan, PartitionPlanner
from housekeeping.engine.reporting import RunReport
from housekeeping.operations.detachment import Detachment
from housekeeping.operations.partition_steps import Steps
from housekeeping.operations.retirement import Export, Retirement
from housekeeping.policies.errors import TableBlocked
from housekeeping.policies.result import StopReason
from housekeeping.stores.postgres.conditions import Condition, condition_of
from housekeeping.stores.postgres.connection import guarded
from housekeeping.stores.postgres.leaves import leaf_target
from housekeeping.stores.postgres.names import quoted
from housekeeping.stores.postgres.partitions import PartitionTree, partition_tree
from housekeeping.stores.postgres.partman import partmans_word
from housekeeping.stores.postgres.preflight import Target
from housekeeping.stores.postgres.window_ledger import WindowLedger

WalkLeaf = Callable[[Target, WindowLedger], StopReason]


@dataclass(frozen=True)
class Looked:
    """A partitioned table as it is now, and what a run would do to it."""

    tree: PartitionTree
    plan: PartitionPlan
    leaves: tuple[Target, ...]
    """those that give their expired rows one by one"""
    left_to: str | None
    """who retires its partitions instead of us; then nothing is done"""

    @property
    def warnings(self) -> tuple[str, ...]:
        return (*((self.left_to,) if self.left_to else ()), *self.plan.warnings)


def look(
    connection: Connection, target: Target, cutoffs: Mapping[str, datetime], *, limited: bool
) -> Looked:
    """Plan, and look up every partition whose rows will go; in a reading transaction.

    Raises the PolicyRefused a partition calls for, and TableBlocked where one is locked.
    """
    tree = partition_tree(connection, target.facts.oid)
    left_to = _left_to(connection, tree)
    try:
        plan = PartitionPlanner(connection, target, tree, cutoffs, limited=limited).plan()
    except DBAPIError as error:
        if condition_of(error) is Condition.CONTENDED:
            raise TableBlocked(table=target.facts.label, seconds=0) from error
        raise
    if left_to is not None:
        plan = replace(plan, whole=(), by_rows=(), obstacle=left_to)
    leaves = tuple(leaf_target(connection, target, tree, leaf) for leaf in plan.by_rows)
    return Looked(tree, plan, leaves, left_to)


def _left_to(connection: Connection, tree: PartitionTree) -> str | None:
    word = partmans_word(connection, [node.label for node in tree.nodes.values()])
    if word is None:
        return None
    table, retention = word
    if not retention:
        return f"{table} may not be read, so nobody knows whether pg_partman retires partitions: GRANT SELECT on it"
    return (
        f"pg_partman retires partitions of {table} (retention {retention}); nothing is done here. "
        "Set its retention to NULL to leave that to housekeeping"
    )


@dataclass(frozen=True)
class PartitionedPurge:
    """One run on a partitioned table, under the lease and the fence of the whole."""

    target: Target
    cutoffs: Mapping[str, datetime]
    steps: Steps
    report: RunReport
    limited: bool
    resumed: bool
    export: Export | None = None

    def run(self, walk: WalkLeaf) -> StopReason:
        """Look after what earlier runs detached, detach what expired, then take rows leaf by leaf."""
        looked = self._look()
        if looked.left_to is not None:
            self.report.started(self.target.facts.label, looked.plan, resumed=self.resumed)
            self.steps.warnings += looked.warnings
            return StopReason.EXHAUSTED
        if (reason := Retirement(self.steps, self.export).run()) is not None:
            return reason
        looked = self._look()  # what was pending is gone now
        self._tell(looked)
        self.report.started(self.target.facts.label, looked.plan, resumed=self.resumed)
        if (reason := Detachment(self.steps, looked.tree).run(looked.plan.whole)) is not None:
            return reason
        for leaf in looked.leaves:
            reason = walk(leaf, replace(self.steps.ledger, part=leaf.facts.label))
            if reason is not StopReason.EXHAUSTED:
                return reason
        return StopReason.EXHAUSTED

    def _look(self) -> Looked:
        with guarded(self.steps.connection, self.target.policy.pace, reading=True, any_plan=True):
            return look(self.steps.connection, self.target, self.cutoffs, limited=self.limited)

    def _tell(self, looked: Looked) -> None:
        self.steps.warnings += looked.warnings
        ours = {detached.oid for detached in self.steps.seen()}
        for node in looked.tree.pending:
            if node.oid not in ours:
                parent = looked.tree.nodes[node.parent]
                self.steps.warnings.append(
                    f"somebody's detaching of {node.label} was cut short; its rows are out of sight. "
                    f"ALTER TABLE {quoted(parent.schema, parent.name)} DETACH PARTITION "
                    f"{quoted(node.schema, node.name)} FINALIZE"
                )
