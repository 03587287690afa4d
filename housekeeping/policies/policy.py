"""What every policy is, whatever it works on: whose, where, and how gently."""

from dataclasses import dataclass, field

from housekeeping.policies.allowance import Allowance
from housekeeping.policies.hold import Hold
from housekeeping.policies.pace import Pace


@dataclass(frozen=True, kw_only=True)
class Policy:
    """One thing a user wants kept in order."""

    operation: str
    """task name without its `tasks.` prefix, such as `occurrences.retention`"""
    name: str
    database_url: str = field(repr=False)
    pace: Pace = field(default_factory=Pace)
    allowance: Allowance = field(default_factory=Allowance)
    holds: tuple[Hold, ...] = ()
    """every hold the settings place on the policy's database, whatever their tables"""
    doubts: tuple[str, ...] = ()
    """what in the settings it was made from is hardly meant so; told by checks and dry runs"""

    @property
    def task(self) -> str:
        return f"tasks.{self.operation}"

    @property
    def works_on(self) -> str:
        """Return what it works on, for people."""
        return ""

    @property
    def detail_keys(self) -> tuple[str, ...]:
        """Keys the result's details have however the run ends."""
        return ()

    @property
    def total_key(self) -> str:
        """Name of the result's total: one of result.TOTAL_KEYS."""
        return "total_deleted"
