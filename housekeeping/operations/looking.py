"""A table in parts as it is now, and what a run would do to it; reads only."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from housekeeping.engine.partition_planning import PartitionPlan, PartitionPlanner, WholePartition
from housekeeping.policies.errors import TableBlocked
from housekeeping.stores.postgres.conditions import Condition, condition_of
from housekeeping.stores.postgres.leaves import leaf_targets
from housekeeping.stores.postgres.partitions import (
    PartitionTree,
    partition_tree,
    publishing_deletes,
)
from housekeeping.stores.postgres.partman import partmans_word
from housekeeping.stores.postgres.preflight import Target


@dataclass(frozen=True)
class Looked:
    """A partitioned table, and what a run would do to it."""

    tree: PartitionTree
    plan: PartitionPlan
    leaves: tuple[Target, ...]
    """those that give their expired rows one by one"""
    left_alone: bool
    """another tool retires its partitions; nothing is done"""

    @property
    def whole(self) -> tuple[WholePartition, ...]:
        return self.plan.whole

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.plan.warnings


def look(
    connection: Connection, target: Target, cutoffs: Mapping[str, datetime], *, limited: bool
) -> Looked:
    """Plan, and look up every partition whose rows will go; in a reading transaction.

    Raises the PolicyRefused a partition calls for, and TableBlocked where one is locked.
    """
    tree = partition_tree(connection, target.facts.oid)
    partman = _partmans(connection, target.policy.name, tree)
    planner = PartitionPlanner(connection, target, tree, cutoffs, limited=limited)
    try:
        plan = planner.plan()
    except DBAPIError as error:
        if condition_of(error) is Condition.CONTENDED:
            raise TableBlocked(table=target.facts.label, seconds=0) from error
        raise
    if partman is not None:
        left = replace(plan, whole=(), by_rows=(), obstacle=partman, warnings=(partman,))
        return Looked(tree, left, (), left_alone=True)
    if plan.whole and (publication := publishing_deletes(connection, tree)):
        told = (
            f"publication {publication} publishes deletes: its subscribers keep the rows of whole "
            "partitions"
        )
        plan = replace(plan, warnings=(*plan.warnings, told))
    leaves = leaf_targets(connection, target, tree, plan.by_rows)
    return Looked(tree, planner.estimated(plan), leaves, left_alone=False)


def _partmans(connection: Connection, policy: str, tree: PartitionTree) -> str | None:
    word = partmans_word(connection, policy, [node.label for node in tree.nodes.values()])
    if word is None:
        return None
    return (
        f"pg_partman retires partitions of {word[0]} (retention {word[1]}); nothing is done here. "
        "Set its retention to NULL to leave that to housekeeping"
    )
