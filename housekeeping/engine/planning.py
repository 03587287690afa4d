"""Which way a purge walks its table: along the heap, or along an index that serves the age."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from housekeeping.policies.purge import ExpiryRule
from housekeeping.stores.postgres.cutoffs import AgeType
from housekeeping.stores.postgres.estimates import (
    correlation,
    estimated_expired,
    estimated_rows,
    index_serving,
)
from housekeeping.stores.postgres.keys import key_column, key_of, key_type
from housekeeping.stores.postgres.predicate import Predicate, PredicateBuilder
from housekeeping.stores.postgres.preflight import Target
from housekeeping.stores.postgres.probes import KeyProbe

# Below 8 MB a whole scan costs less than asking where to look.
SMALL_TABLE_BLOCKS = 1_024
# From which share of expired rows on the heap wins was measured on 4 M rows: from about 40 % where
# the heap lies in the order of the age, from 3 % where it lies at random and every index entry leads
# to another block. In between by the square of pg_stats' correlation, as the planner costs it.
HEAP_SHARE_AT_RANDOM = 0.03
HEAP_SHARE_IN_ORDER = 0.40
HEAP_SHARE_UNKNOWN = 0.10


@dataclass(frozen=True)
class HeapPlan:
    """Walk all blocks the table had when the run began."""

    predicate: Predicate
    blocks: int
    rows: int
    """the planner's estimate for the table: old statistics, scaled by today's size"""
    name: str = "heap"


@dataclass(frozen=True)
class KeyPlan:
    """Walk an index from its oldest entry to the cutoff."""

    predicate: Predicate
    probe: KeyProbe
    index: str
    age_type: AgeType
    table_rows: int
    name: str


@dataclass(frozen=True)
class Plan:
    """How a run will go, and what it expects."""

    walks: tuple[HeapPlan | KeyPlan, ...]
    served: tuple[KeyPlan, ...]
    """walks an index could serve, whether or not they were chosen"""
    estimate: int
    """rows the planner expects to go"""
    table_rows: int
    reason: str
    """why this way"""
    well_known: bool = True
    """the estimate stands on statistics: the table was analyzed, its age is a column"""
    in_parts = False

    @property
    def told(self) -> str:
        """Return the way for people."""
        return f"{', '.join(walk.name for walk in self.walks)}: {self.reason}"

    def as_dict(self) -> dict[str, Any]:
        return {
            "walks": [walk.name for walk in self.walks],
            "indexes": sorted({plan.index for plan in self.served}),
            "estimated_rows": self.estimate,
            "table_rows": self.table_rows,
            "because": self.reason,
        }


class Planner:
    """Makes the plan of one run; inside a reading transaction that may choose any plan."""

    def __init__(
        self,
        connection: Connection,
        target: Target,
        now: datetime,
        cutoffs: Mapping[str, datetime],
        walker: str | None = None,
    ) -> None:
        self._connection = connection
        self._target = target
        self._cutoffs = cutoffs
        self._walker = walker
        self._table_rows = estimated_rows(connection, target.facts.identifier)
        self._build = PredicateBuilder(
            target.facts,
            target.age,
            target.age_type,
            target.policy.where,
            target.keepers,
            now,
            target.newest,
            target.holding,
        ).build

    def predicate(self) -> Predicate:
        """Return which rows go by any of the policy's rules."""
        return self._build(self._target.rules, self._cutoffs)

    def plan(self) -> Plan:
        """Choose the walks by the planner's estimate and by which indexes exist."""
        rules = self._target.rules
        table_rows = self._table_rows
        served = self._served_together(rules) or self._served_apart(rules)
        estimate = sum(self._estimate(rule) for rule in rules)
        estimate = min(estimate, table_rows)
        heap, reason = self._prefers_heap(served, estimate, table_rows)
        walks: tuple[HeapPlan | KeyPlan, ...] = served
        if heap:
            predicate = self._build(rules, self._cutoffs)
            walks = (HeapPlan(predicate, self._target.facts.pages, table_rows),)
        known = self._target.facts.rows >= 0 and key_column(self._target) is not None
        return Plan(walks, served, estimate, table_rows, reason, known)

    def _prefers_heap(
        self, served: Sequence[KeyPlan], estimate: int, table_rows: int
    ) -> tuple[bool, str]:
        pages = self._target.facts.pages
        if self._walker is not None:
            return self._walker == "heap" or not served, "asked for"
        if not served:
            return True, "no index yields the age in order"
        if pages <= SMALL_TABLE_BLOCKS:
            return True, f"the table has only {pages} blocks"
        share = estimate / max(1, table_rows)
        limit = self._heap_share()
        return (
            share >= limit,
            f"about {share:.0%} of the table expired, the heap wins from {limit:.0%}",
        )

    def _heap_share(self) -> float:
        column = key_column(self._target)
        order = None
        if column is not None:
            order = correlation(self._connection, self._target.facts, column)
        if order is None:
            return HEAP_SHARE_UNKNOWN
        return HEAP_SHARE_AT_RANDOM + (HEAP_SHARE_IN_ORDER - HEAP_SHARE_AT_RANDOM) * order**2

    def _served_together(self, rules: Sequence[ExpiryRule]) -> tuple[KeyPlan, ...]:
        """One walk for all rules, where an index on the age alone serves them."""
        if len(rules) > 1 and any(rule.column for rule in rules):
            apart = self._served_apart(rules)
            if apart:
                return apart
        latest = max(self._cutoffs[rule.reason] for rule in rules)
        plan = self._serve(None, rules, latest, "index")
        return () if plan is None else (plan,)

    def _served_apart(self, rules: Sequence[ExpiryRule]) -> tuple[KeyPlan, ...]:
        """Walk each rule by itself, where indexes lead with the rule's own column."""
        plans = []
        for rule in rules:
            name = f"index:{rule.reason}"
            plan = self._serve(rule, (rule,), self._cutoffs[rule.reason], name)
            if plan is None:
                return ()
            plans.append(plan)
        return tuple(plans)

    def _serve(
        self,
        equality: ExpiryRule | None,
        rules: Sequence[ExpiryRule],
        cutoff: datetime,
        name: str,
    ) -> KeyPlan | None:
        kind = key_type(self._target)
        key = key_of(self._target, equality)
        bound = kind.at(cutoff)
        index = index_serving(self._connection, self._target.facts, key, bound)
        if index is None:
            return None
        probe = KeyProbe(self._target.facts, key, bound)
        predicate = self._build(rules, self._cutoffs)
        return KeyPlan(predicate, probe, index, kind, self._table_rows, name)

    def _estimate(self, rule: ExpiryRule) -> int:
        key = key_of(self._target, rule)
        cutoff = key_type(self._target).at(self._cutoffs[rule.reason])
        where = self._target.policy.where
        return estimated_expired(
            self._connection, self._target.facts.identifier, key, cutoff, where
        )
