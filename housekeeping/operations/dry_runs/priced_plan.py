"""The plan of a dry run as its result tells it: statements, fan-out, cost, advice."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from sqlalchemy import Connection

from housekeeping.engine.price.advising import Advice, Adviser
from housekeeping.engine.price.pricing import vacuum_advised
from housekeeping.operations.dry_runs.outlook import Outlook
from housekeeping.operations.dry_runs.rehearsal import Rehearsed
from housekeeping.policies.pace import Pace
from housekeeping.policies.result import StopReason
from housekeeping.stores.postgres.connection import guarded
from housekeeping.stores.postgres.fan_out import KEEPS, UPDATED, Branch
from housekeeping.stores.postgres.index_advice import vacuum

# Detached and dropped: 1.5 M rows took 60 kB of WAL, where deleting them took 432 MB.
_WHOLE_SECONDS = 0.1
_WHOLE_WAL_BYTES = 60_000

_LEARNED = "the last {} runs of this policy"
_MEASURED_NOW = "how fast this server is right now"

_ON_DELETE = {
    "a": "no action",
    "r": "restrict",
    "c": "cascade",
    "n": "set null",
    "d": "set default",
}


@dataclass(frozen=True)
class Found:
    """What would go from one table."""

    counted: str
    """exact, estimate or partly"""
    rows: int
    details: Mapping[str, int]
    """rows by reason, and children by their key"""


@dataclass(frozen=True)
class PricedPlan:
    """Tells what a dry run found out of one table."""

    connection: Connection
    ahead: Outlook
    found: Found
    told: Rehearsed

    def statements(self) -> list[dict[str, Any]]:
        return [
            {
                "walk": walk,
                "window": window,
                "name": one.name,
                "sql": one.text,
                "explain": list(one.lines),
                "reads_whole": [f"{schema}.{name}" for schema, name in one.reads_whole],
                **({"not_explained": one.problem} if one.problem else {}),
            }
            for walk, window, one in self.told.statements
        ]

    @property
    def rows(self) -> int:
        """Rows a run would remove: of a count that ended early, no fewer than the estimate."""
        if self.found.counted != "partly" or self.told.limited:
            return self.found.rows
        return max(self.found.rows, self.ahead.plan.estimate)

    def advice(self) -> tuple[Advice, ...]:
        policy, expired = self.ahead.target.policy, self.found.rows
        if self.found.counted == "partly":  # a limit says nothing of how much has expired
            expired = max(expired, self.ahead.plan.estimate)
        with guarded(self.connection, policy.pace, reading=True, any_plan=True):
            adviser = Adviser(self.connection, self.ahead.target, self.ahead.plan, expired)
            statements = [one for _, _, one in self.told.statements]
            return adviser.advice(self.ahead.branches, statements)

    def fan_out(self) -> Iterator[dict[str, Any]]:
        for branch in self.ahead.branches:
            yield self._branch(branch)

    def _branch(self, branch: Branch) -> dict[str, Any]:
        key = branch.child.key if branch.child else None
        rows: int | None = None
        if branch.effect != KEEPS:
            rows = round(self.rows * branch.per_row)
        exact = self.found.counted == "exact" and key is not None and self._alone(key)
        if exact and key is not None:
            rows = self.found.details.get(key, 0)
        told: dict[str, Any] = {
            "table": branch.table,
            "constraint": branch.key.name,
            "through": list(branch.through),
            "on_delete": _ON_DELETE[branch.key.on_delete],
            "effect": branch.effect,
            "rows": rows,
            "counted": "exact" if exact else "estimate",
            "per_row": round(branch.per_row, 3),
            "indexed": branch.key.indexed,
        }
        if branch.child is not None:
            told["key"] = key
            told["keeps"] = branch.child.keeps
        return told

    def _alone(self, key: str) -> bool:
        """Whether a key of the details is one foreign key's; two of one child add up under it."""
        return sum(1 for b in self.ahead.branches if b.child and b.child.key == key) == 1

    def cost(self) -> dict[str, Any]:
        """Return what the run costs on this table."""
        children = {
            key: float(rows)
            for key, rows in self.found.details.items()
            if self.found.counted == "exact" and key in self.ahead.along(1)
        }
        work = self.ahead.work(self.rows, children)
        price, factor = self.ahead.price(work)
        runs = len(self.ahead.past.runs)
        return {
            **vars(price),
            "dead_rows": round(self.ahead.storage.dead_rows + work.rows),
            "vacuum": list(self._vacuums(work.rows)),
            "basis": _LEARNED.format(runs) if runs else _MEASURED_NOW,
            "times_the_model": factor,
        }

    def _vacuums(self, rows: float) -> Iterator[str]:
        facts, storage = self.ahead.target.facts, self.ahead.storage
        if vacuum_advised(storage.dead_rows + rows, storage.rows):
            yield vacuum(facts.schema, facts.name)
        for branch in self.ahead.branches:
            dead = branch.storage.dead_rows + rows * branch.per_row
            if branch.effect != KEEPS and vacuum_advised(dead, branch.storage.rows):
                yield vacuum(branch.key.child_schema, branch.key.child)

    def warnings(self) -> Iterator[str]:
        read = {table: None for _, _, one in self.told.statements for table in one.reads_whole}
        for schema, name in read:
            yield f"every window reads all of {schema}.{name}: no index serves the look-up"
        for branch in self.ahead.branches:
            if branch.through and branch.effect == KEEPS:
                yield (
                    f"rows of {branch.table} keep rows of {branch.through[-1]} ({branch.key.name}): "
                    "where there are some, the row above them can't go"
                )
            if branch.through and branch.effect == UPDATED:
                yield f"rows of {branch.table} are updated when rows of {branch.through[-1]} go"


def priced(pace: Pace, plans: Sequence[PricedPlan], whole: Sequence[int]) -> dict[str, Any]:
    """Return what `plan` holds as JSON takes it, and the `warnings` of the result.

    `plans`: of the table, or of each leaf whose rows go one by one. `whole`: bytes of each partition
    that goes as it is.
    """
    first = plans[0] if plans else None
    advice = dict.fromkeys(one for plan in plans for one in plan.advice())
    shape: dict[str, Any] = {
        "statement": first.told.deletes if first else "",
        "statements": first.statements() if first else [],
        "fan_out": _merged(plans),
        "cost": _cost(pace, plans, whole),
        "advice": [{"sql": one.sql, "because": one.because} for one in advice],
        "warnings": tuple(dict.fromkeys(told for plan in plans for told in plan.warnings())),
    }
    dated = [plan.told.dated_tables for plan in plans if plan.told.dated_tables is not None]
    if dated:
        tables = {table["table"]: table for one in dated for table in one["tables"]}
        complete = all(one["complete"] for one in dated)
        shape["archive"] = {"tables": list(tables.values()), "complete": complete}
    return shape


def _merged(plans: Sequence[PricedPlan]) -> list[dict[str, Any]]:
    """Return the fan-out: of leaves, what each foreign key comes to in all of them."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for plan in plans:
        for told in plan.fan_out():
            key = (told["table"], told["constraint"], *told["through"])
            if key in found and told["rows"] is not None:
                found[key]["rows"] += told["rows"]
            found.setdefault(key, told)
    return list(found.values())


def _cost(pace: Pace, plans: Sequence[PricedPlan], whole: Sequence[int]) -> dict[str, Any]:
    costs = [plan.cost() for plan in plans]

    def total(key: str) -> float:
        return float(sum(cost[key] for cost in costs))

    seconds = total("seconds") + len(whole) * _WHOLE_SECONDS
    budget = pace.time_budget.total_seconds()
    ends = StopReason.TIME_BUDGET if seconds > budget else StopReason.EXHAUSTED
    limited = [plan.told.limit for plan in plans if plan.told.limit is not None]
    if limited and sum(plan.rows for plan in plans) >= limited[0]:
        ends = StopReason.ROW_BUDGET
    vacuums = list(dict.fromkeys(line for cost in costs for line in cost["vacuum"]))
    told = {
        "seconds": round(seconds, 2),
        "worked_seconds": round(total("worked_seconds"), 2),
        "rest_seconds": round(total("rest_seconds"), 2),
        "batches": round(total("batches")),
        "stop_reason": ends.value,
        "runs": max(1, ceil(seconds / budget)),
        "wal_bytes": round(total("wal_bytes")) + len(whole) * _WHOLE_WAL_BYTES,
        "pages": round(total("pages")),
        "dead_rows": round(total("dead_rows")),
        "reusable_bytes": round(total("reusable_bytes")),
        "vacuum_advised": bool(vacuums),
        "vacuum": vacuums,
        "basis": costs[0]["basis"] if costs else "whole partitions only",
        "times_the_model": round(costs[0]["times_the_model"], 2) if costs else 1.0,
    }
    return {**told, "dropped_bytes": sum(whole)} if whole else told
