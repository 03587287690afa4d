"""What every run returns, whatever it worked on: the shape monitoring scripts read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class StopReason(StrEnum):
    """Why a run ended. There is no run without one."""

    EXHAUSTED = "exhausted"
    """All windows are done."""
    TIME_BUDGET = "time_budget"
    ROW_BUDGET = "row_budget"
    STOPPED = "stopped"
    """An operator stopped this run."""
    PAUSED = "paused"
    """An operator paused the task."""
    LOCK_LOST = "lock_lost"
    """The lease went to somebody else, or Redis was away for longer than the lease lives."""
    LOCKED = "locked"
    """Another run held the lease from the start."""
    THROTTLED = "throttled"
    """Something that should have been done would have been in somebody's way."""
    ERROR = "error"
    DRY_RUN = "dry_run"


_EXIT_CODES = {
    StopReason.EXHAUSTED: 0,
    StopReason.DRY_RUN: 0,
    StopReason.ERROR: 1,
    StopReason.LOCKED: 3,
}
EXIT_PARTIAL = 2
TOTAL_KEYS = ("total_deleted", "total_archived", "total_cleaned", "total_restored")


@dataclass
class Phases:
    """Seconds a run spent on each thing; monotonic clock."""

    probe: float = 0.0
    """preflight, planning and finding where windows end"""
    delete: float = 0.0
    commit: float = 0.0
    wait: float = 0.0
    """resting for the duty ratio, or waiting until the database is well again"""

    def as_dict(self) -> dict[str, float]:
        return {name: round(seconds, 4) for name, seconds in vars(self).items()}


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """How a run went. Counts are committed rows only; no key is ever missing.

    `success` is never true when something that should have been done was not: a run that a budget
    or an operator cut short, or that left a row behind because another session held it, says false.
    """

    operation: str
    policy: str
    run_id: str
    stop_reason: StopReason
    total_key: str = "total_deleted"
    total: int = 0
    details: Mapping[str, int] = field(default_factory=dict)
    cutoffs: Mapping[str, datetime] = field(default_factory=dict)
    batches: int = 0
    seconds: float = 0.0
    phases: Phases = field(default_factory=Phases)
    oldest_expired_age_seconds: float | None = None
    warnings: tuple[str, ...] = ()
    left_behind: int = 0
    """rows that expired but stayed: held by another session, or refusing to go"""
    dry_run: bool = False
    plan: Mapping[str, Any] | None = None
    error: str | None = None
    tables: tuple[Mapping[str, Any], ...] = ()
    """one entry a table, for operations that work on several: its name, what was done, figures"""
    workers: int = 1
    """how many shared the run; told where it was more than one"""
    holds: tuple[str, ...] = ()
    """what was in force and kept rows of the table, or rows that would have gone along"""

    waits: Mapping[str, float] = field(default_factory=dict)
    """seconds a run was stopped or slowed down, by the health signal it was for"""

    @property
    def success(self) -> bool:
        done = self.stop_reason in (StopReason.EXHAUSTED, StopReason.DRY_RUN)
        return done and not self._counted_partly and not self.left_behind and self.error is None

    @property
    def _counted_partly(self) -> bool:
        """A dry run that was cut short, or of a run that would be; an estimate counts as whole."""
        if self.plan is None:
            return False
        if self.plan.get("would_stop", False):
            return True
        if "counted" in self.plan:
            return bool(self.plan["counted"] == "partly")
        return not self.plan.get("counted_all", True)

    @property
    def exit_code(self) -> int:
        """0 done, 1 failed, 2 partial, 3 another run holds the lock."""
        if self.stop_reason in (StopReason.EXHAUSTED, StopReason.DRY_RUN):
            return 0 if self.success else EXIT_PARTIAL
        return _EXIT_CODES.get(self.stop_reason, EXIT_PARTIAL)

    @classmethod
    def from_dict(cls, shape: Mapping[str, Any]) -> "RunResult":
        """Read a result back from the form `as_dict` gave it."""
        total_key = next(key for key in TOTAL_KEYS if key in shape)
        cutoffs = {r: datetime.fromisoformat(stamp) for r, stamp in shape["cutoffs"].items()}
        return cls(
            operation=shape["operation"],
            policy=shape["policy"],
            run_id=shape["run_id"],
            stop_reason=StopReason(shape["stop_reason"]),
            total_key=total_key,
            total=shape[total_key],
            details=shape["details"],
            cutoffs=cutoffs,
            batches=shape["batches"],
            seconds=shape["seconds"],
            phases=Phases(**shape["phases"]),
            oldest_expired_age_seconds=shape["oldest_expired_age_seconds"],
            warnings=tuple(shape["warnings"]),
            left_behind=shape.get("left_behind", 0),
            dry_run=shape["dry_run"],
            plan=shape.get("plan"),
            error=shape.get("error"),
            tables=tuple(shape.get("tables", ())),
            waits=shape.get("waits", {}),
            workers=shape.get("workers", 1),
            holds=tuple(shape.get("holds", ())),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON-ready form; its keys are the contract."""
        shape: dict[str, Any] = {
            "success": self.success,
            "operation": self.operation,
            "policy": self.policy,
            "run_id": self.run_id,
            "stop_reason": self.stop_reason.value,
            "dry_run": self.dry_run,
            self.total_key: self.total,
            "details": dict(self.details),
            "cutoffs": {reason: cutoff.isoformat() for reason, cutoff in self.cutoffs.items()},
            "batches": self.batches,
            "seconds": round(self.seconds, 4),
            "phases": self.phases.as_dict(),
            "oldest_expired_age_seconds": self.oldest_expired_age_seconds,
            "warnings": list(self.warnings),
        }
        if self.left_behind:
            shape["left_behind"] = self.left_behind
        if self.waits:
            shape["waits"] = dict(self.waits)
        if self.tables:
            shape["tables"] = [dict(table) for table in self.tables]
        if self.workers > 1:
            shape["workers"] = self.workers
        if self.holds:
            shape["holds"] = list(self.holds)
        if self.plan is not None:
            shape["plan"] = dict(self.plan)
        if self.error is not None:
            shape["error"] = self.error
        return shape
