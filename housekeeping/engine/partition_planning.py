"""Which partitions go whole, and which give their expired rows one by one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from housekeeping.policies.errors import PolicyRefused
from housekeeping.stores.postgres.estimates import estimated_expired
from housekeeping.stores.postgres.keys import key_of, key_type
from housekeeping.stores.postgres.partition_bounds import Upper, held_rows, leaves_reached, uppers
from housekeeping.stores.postgres.partitions import Partition, PartitionTree, bytes_of
from housekeeping.stores.postgres.predicate import age_expression
from housekeeping.stores.postgres.preflight import Target

_SHOWN = 3  # partitions in one warning


@dataclass(frozen=True)
class WholePartition:
    """A partition all of whose rows have expired, with everything below it."""

    partition: Partition
    parent: Partition
    upper: str
    """where it ends, as the server writes it; exclusive"""
    rows: int
    """the planner's estimate"""
    bytes: int

    def as_dict(self) -> dict[str, Any]:
        return {
            "table": self.partition.label,
            "bounds": self.partition.bounds,
            "rows": self.rows,
            "bytes": self.bytes,
        }


@dataclass(frozen=True)
class PartitionPlan:
    """What a run on a partitioned table will do."""

    whole: tuple[WholePartition, ...]
    """oldest first"""
    by_rows: tuple[Partition, ...]
    """leaves that may hold expired rows"""
    obstacle: str | None
    """why no partition goes whole"""
    warnings: tuple[str, ...]
    table_rows: int
    retiring: str | None = None
    """what would become of those detached earlier, where that was looked up"""
    estimate: int = 0
    """rows the planner expects to go"""
    well_known = False
    """rows of whole partitions are estimates, and they go at once"""
    in_parts = True
    """how far one partition is walked says little of the whole"""

    @property
    def reason(self) -> str:
        told = f"{len(self.whole)} partitions go whole, {len(self.by_rows)} by rows"
        told = f"{told}: {self.obstacle}" if self.obstacle else told
        return f"{told}; {self.retiring}" if self.retiring else told

    @property
    def told(self) -> str:
        return f"partitions: {self.reason}"

    def as_dict(self) -> dict[str, Any]:
        return {
            "walks": ["partitions"],
            "whole_partitions": [whole.as_dict() for whole in self.whole],
            "by_rows": [leaf.label for leaf in self.by_rows],
            "indexes": [],
            "estimated_rows": self.estimate,
            "table_rows": self.table_rows,
            "because": self.reason,
        }


class PartitionPlanner:
    """Makes the plan of one run; inside a reading transaction that may choose any plan."""

    def __init__(
        self,
        connection: Connection,
        target: Target,
        tree: PartitionTree,
        cutoffs: Mapping[str, datetime],
        *,
        limited: bool,
    ) -> None:
        self._connection = connection
        self._target = target
        self._tree = tree
        self._cutoffs = cutoffs
        self._limited = limited

    def plan(self) -> PartitionPlan:
        """Decide for every partition; the server's own pruning says what can hold which rows.

        Raises PolicyRefused where partitions are to be exported and never could be.
        """
        obstacle = self._obstacle()
        self._refuse_unexportable(obstacle)
        whole = [] if obstacle else self._whole()
        gone = {node.oid for each in whole for node in self._tree.subtree(each.partition)}
        rest = [leaf for leaf in self._may_hold_expired() if leaf.oid not in gone]
        by_rows = tuple(leaf for leaf in rest if leaf.kind != "f")
        warnings = list(self._warnings(rest))
        if self._exporting and by_rows:
            warnings.append(self._waiting(by_rows, obstacle))
            by_rows = ()
        return PartitionPlan(
            whole=tuple(whole),
            by_rows=by_rows,
            obstacle=obstacle,
            warnings=tuple(warnings),
            table_rows=held_rows(self._connection, self._tree, self._tree.root),
        )

    @property
    def _exporting(self) -> bool:
        return self._target.policy.partitions.export is not None

    def _refuse_unexportable(self, obstacle: str | None) -> None:
        if not self._exporting or self._target.holding:
            return  # what a hold keeps waits for it
        if obstacle is None and not any(map(self._by_age, self._tree.nodes.values())):
            obstacle = (
                f"none of its levels has partitions by ranges of {self._target.age.columns[0]}"
            )
        if obstacle is None:
            return
        raise PolicyRefused(
            f"{self._target.policy.name}: partitions of {self._target.facts.label} are to be exported "
            f"before they are dropped, but none goes whole: {obstacle}. Rows that go one by one would "
            "be in no export, so nothing goes at all"
        )

    def _waiting(self, leaves: tuple[Partition, ...], obstacle: str | None) -> str:
        """Tell of rows that expired and stay: one by one they would be in no export."""
        shown = ", ".join(leaf.label for leaf in leaves[:_SHOWN])
        more = f" and {len(leaves) - _SHOWN} more" if len(leaves) > _SHOWN else ""
        why = f" ({obstacle})" if obstacle else ""
        return (
            f"partitions go whole or not at all{why}, as they are to be exported: expired rows of "
            f"{shown}{more} stay for now"
        )

    def _obstacle(self) -> str | None:
        """Say why a partition below the cutoff can't go unread; None when it can."""
        target, policy = self._target, self._target.policy
        checks = (
            (policy.archive is not None, "an archive takes rows one by one"),
            (
                not policy.takes_every_old_row,
                "not every old row goes: the policy has statuses, a where, or something keeps rows",
            ),
            (bool(target.holding), "a hold keeps rows"),
            (len(target.age.columns) != 1, "their age is no single column"),
            (self._limited, "a limit counts rows"),
            (
                not self._tree.root.owned,
                f"{target.facts.role} does not own {target.facts.label}",
            ),
        )
        return next((told for holds, told in checks if holds), None) or self._dependants()

    def _dependants(self) -> str | None:
        for node in self._tree.nodes.values():
            if node.referenced:
                return f"a foreign key refers to {node.label}"
            if node.row_triggers:
                return f"trigger {node.row_triggers[0]} on {node.label} has to see every row go"
        return None

    def _whole(self) -> list[WholePartition]:
        column = self._target.age.columns[0]
        cutoff = self._cutoff(max)
        age = age_expression(self._target.age)
        ranged = [
            child
            for node in self._tree.nodes.values()
            if self._by_age(node) and node.owned
            for child in self._tree.children(node)
            if not child.default and child.owned and self._is_ours(child)
        ]
        facts = self._target.facts
        ends = uppers(self._connection, ranged, facts.columns[column], cutoff)
        younger = leaves_reached(self._connection, self._tree, age, ">=", cutoff)
        going = [
            child
            for child in ranged
            if child.oid in ends and ends[child.oid].expired and self._all_below(child, younger)
        ]
        staying = set(self._last_ones(going, ends))
        highest = self._highest({child.oid for child in going} - staying)
        return [
            self._sized(child, ends[child.oid])
            for child in sorted(highest, key=lambda child: (ends[child.oid].rank, child.label))
        ]

    def _by_age(self, node: Partition) -> bool:
        return node.strategy == "r" and node.key == self._target.age.columns[0]

    def _is_ours(self, node: Partition) -> bool:
        return all(part.kind in ("r", "p") for part in self._tree.subtree(node))

    def _all_below(self, node: Partition, younger: frozenset[int]) -> bool:
        return all(leaf.oid not in younger for leaf in self._tree.leaves(node))

    def _last_ones(self, going: list[Partition], ends: Mapping[int, Upper]) -> Iterator[int]:
        """Yield the newest partition of every table that would be left with none but a DEFAULT."""
        for parent in {child.parent for child in going}:
            own = [child for child in going if child.parent == parent]
            siblings = self._tree.children(self._tree.nodes[parent])
            if len(own) == sum(not sibling.default for sibling in siblings):
                yield max(own, key=lambda child: ends[child.oid].rank).oid

    def _highest(self, going: set[int], node: Partition | None = None) -> Iterator[Partition]:
        for child in self._tree.children(node or self._tree.root):
            if child.oid in going:
                yield child
            else:
                yield from self._highest(going, child)

    def _sized(self, child: Partition, end: Upper) -> WholePartition:
        return WholePartition(
            partition=child,
            parent=self._tree.parent(child),
            upper=end.text,
            rows=held_rows(self._connection, self._tree, child),
            bytes=bytes_of(self._connection, self._tree, child),
        )

    def _may_hold_expired(self) -> list[Partition]:
        age = age_expression(self._target.age)
        reached = leaves_reached(self._connection, self._tree, age, "<", self._cutoff(max))
        return [leaf for leaf in self._tree.leaves() if leaf.oid in reached]

    def _cutoff(self, which: Any) -> object:
        moments = [self._cutoffs[rule.reason] for rule in self._target.rules]
        return self._target.age_type.at(which(moments))

    def _warnings(self, rest: list[Partition]) -> Iterator[str]:
        for leaf in rest:
            if leaf.kind == "f":
                yield f"{leaf.label} is a foreign partition: its rows are for its own server to remove"
        for node in self._tree.nodes.values():
            if node.kind == "p" and node.statement_triggers:
                yield (
                    f"trigger {node.statement_triggers[0]} on {node.label} does not fire: rows go "
                    "partition by partition"
                )

    def estimated(self, plan: PartitionPlan) -> PartitionPlan:
        """Return a plan with what the planner expects to go; needs the right to read its leaves."""
        kind = key_type(self._target)
        rows = sum(
            estimated_expired(
                self._connection,
                leaf.identifier,
                key_of(self._target, rule),
                kind.at(self._cutoffs[rule.reason]),
                self._target.policy.where,
            )
            for rule in self._target.rules
            for leaf in plan.by_rows
        )
        return replace(plan, estimate=rows + sum(each.rows for each in plan.whole))
