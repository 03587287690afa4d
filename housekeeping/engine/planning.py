"""Which way a purge walks its table: along the heap, or along an index that serves the age."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
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
    entries: int
    """the planner's estimate of what the index holds below the cutoff"""


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
    estimates: Mapping[str, int]
    """of those, by the rule they expire by"""
    below: int
    """rows the planner expects below the newest cutoff, whatever else they are"""
    order: float
    """square of the correlation of heap and age; 0 where nothing is known of it"""
    heap_from: float
    """share of expired rows from which on the heap would win"""
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
        estimates = {rule.reason: self._estimate(rule) for rule in rules}
        estimate = min(sum(estimates.values()), table_rows)
        heap, reason = self._prefers_heap(served, estimate, table_rows)
        walks: tuple[HeapPlan | KeyPlan, ...] = served
        if heap:
            predicate = self._build(rules, self._cutoffs)
            walks = (HeapPlan(predicate, self._target.facts.pages, table_rows),)
        known = self._target.facts.rows >= 0 and key_column(self._target) is not None
        return Plan(
            walks,
            served,
            estimate,
            table_rows,
            reason,
            estimates=_shared_out(estimate, estimates),
            below=max(estimate, self._below()),
            order=(self._order or 0.0) ** 2,
            heap_from=self._heap_share(),
            well_known=known,
        )

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

    @cached_property
    def _order(self) -> float | None:
        column = key_column(self._target)
        if column is None:
            return None
        return correlation(self._connection, self._target.facts, column)

    def _heap_share(self) -> float:
        if self._order is None:
            return HEAP_SHARE_UNKNOWN
        return HEAP_SHARE_AT_RANDOM + (HEAP_SHARE_IN_ORDER - HEAP_SHARE_AT_RANDOM) * self._order**2

    def _served_together(self, rules: Sequence[ExpiryRule]) -> tuple[KeyPlan, ...]:
        """One walk for all rules, where an index on the age alone serves them."""
        if any(rule.column for rule in rules):
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
        kind, facts = key_type(self._target), self._target.facts
        bound = kind.at(cutoff)
        where = self._target.policy.where
        # An index that holds only rows the policy's `where` is true for is the shorter way.
        for only in (where, None) if where is not None else (None,):
            key = replace(key_of(self._target, equality), where=only)
            index = index_serving(self._connection, facts, key, bound)
            if index is not None:
                predicate = self._build(rules, self._cutoffs)
                probe = KeyProbe(facts, key, bound)
                entries = estimated_expired(self._connection, facts.identifier, key, bound, None)
                return KeyPlan(predicate, probe, index, kind, self._table_rows, name, entries)
        return None

    def _estimate(self, rule: ExpiryRule) -> int:
        key = key_of(self._target, rule)
        cutoff = key_type(self._target).at(self._cutoffs[rule.reason])
        where = self._target.policy.where
        return estimated_expired(
            self._connection, self._target.facts.identifier, key, cutoff, where
        )

    def _below(self) -> int:
        latest = max(self._cutoffs[rule.reason] for rule in self._target.rules)
        key, cutoff = key_of(self._target, None), key_type(self._target).at(latest)
        return estimated_expired(self._connection, self._target.facts.identifier, key, cutoff, None)


def _shared_out(total: int, parts: Mapping[str, int]) -> dict[str, int]:
    """Return the parts in proportion, so that they add up to the total."""
    left, weight = total, sum(parts.values())
    shared = {}
    for name, part in parts.items():
        shared[name] = round(left * part / weight) if weight else 0
        left, weight = left - shared[name], weight - part
    return shared
