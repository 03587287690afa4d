"""What a maintenance run did to each table, as its result tells it."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from housekeeping.engine.upkeep.needs import Need, Work
from housekeeping.engine.upkeep.surveying import Surveyed
from housekeeping.stores.postgres.upkeep.stepping import Ending, StepOutcome

_COUNTED = {Work.VACUUM: "vacuumed", Work.ANALYZE: "analyzed", Work.REINDEX: "reindexed"}


@dataclass
class Entry:
    """One table's part of the result."""

    surveyed: Surveyed
    actions: list[dict[str, Any]] = field(default_factory=list)
    after: Surveyed | None = None
    note: str | None = None
    error: str | None = None

    @property
    def label(self) -> str:
        return self.surveyed.state.label

    def add(self, need: Need, outcome: str, told: str | None = None, **figures: object) -> None:
        """Add what was done, or would be, and why."""
        action: dict[str, Any] = {
            "work": need.work.value,
            "reason": need.reason,
            "outcome": outcome,
        }
        if told:
            action["told"] = told
        self.actions.append({**action, **{k: v for k, v in figures.items() if v is not None}})

    @property
    def dead_rows_removed(self) -> int:
        """As far as the statistics tell: a table that others write to gets new ones meanwhile."""
        vacuumed = any(
            action["work"] == Work.VACUUM and action["outcome"] == Ending.DONE
            for action in self.actions
        )
        if not vacuumed or self.after is None:
            return 0
        return max(0, self.surveyed.state.dead_rows - self.after.state.dead_rows)

    def as_dict(self) -> dict[str, Any]:
        before, after = self.surveyed, self.after
        finished = [a["work"] for a in self.actions if a["outcome"] == Ending.DONE]
        shape: dict[str, Any] = {
            "table": self.label,
            "done": ", ".join(finished),
            "actions": self.actions,
        }
        figures = {"size": "bytes", "dead_rows": "dead_rows"}
        for key, attribute in figures.items():
            shape[f"{key}_before"] = getattr(before.state, attribute)
            shape[f"{key}_after"] = getattr(after.state, attribute) if after else None
        shape["bloat_before"] = before.bloat_bytes
        shape["bloat_after"] = after.bloat_bytes if after else None
        if self.note:
            shape["note"] = self.note
        if self.error:
            shape["error"] = self.error
        return shape


@dataclass
class Tally:
    """What a run has done so far; read when it ends, however it ends."""

    entries: dict[int, Entry] = field(default_factory=dict)
    absent: list[dict[str, Any]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    capped: bool = False
    """something needed was left for another run, as this one may do no more"""

    def took(self, entry: Entry, need: Need, outcome: StepOutcome, **figures: object) -> None:
        """Tell and count how a step on a table ended."""
        seconds = round(outcome.seconds, 3)
        entry.add(need, outcome.ending.value, outcome.told, seconds=seconds, **figures)
        self.warnings += [f"{entry.label}: {notice}" for notice in outcome.notices]
        if outcome.ending is Ending.DONE:
            self.counts[_COUNTED[need.work]] += 1
        elif outcome.ending is Ending.FAILED:
            self.fail(entry, f"{need.work.value}: {outcome.told}")
        else:
            self.counts["skipped"] += 1

    def fail(self, entry: Entry, told: str) -> None:
        entry.error = told if entry.error is None else f"{entry.error}; {told}"
        self.failures.append(f"{entry.label}: {told}")
        self.counts["failed"] += 1

    @property
    def dead_rows_removed(self) -> int:
        return sum(entry.dead_rows_removed for entry in self.entries.values())

    def tables(self) -> tuple[dict[str, Any], ...]:
        """Return the entries for the result: every table that was named, or that something met."""
        shapes = [
            entry.as_dict()
            for entry in self.entries.values()
            if entry.actions or entry.note or entry.error
        ]
        return (*shapes, *self.absent)

    def is_absent(self, name: str, hint: str, *, optional: bool) -> None:
        """Tell of a table that was named and is not there."""
        if optional:
            note = "not in this database: another generation of the schema"
            self.absent.append({"table": name, "done": "", "actions": [], "note": note})
            return
        told = f"there is no such table. {hint}".strip()
        self.absent.append({"table": name, "done": "", "actions": [], "error": told})
        self.failures.append(f"{name}: {told}")
        self.counts["failed"] += 1
