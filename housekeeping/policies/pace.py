"""How gently a run goes, and when it leaves early."""

from dataclasses import dataclass, field
from datetime import timedelta

from housekeeping.policies.health import HealthLimits
from housekeeping.policies.hours import MaintenanceHours


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How gently a run goes. The defaults suit a production database at night.

    `batch_target`: seconds one transaction should take; windows grow and shrink towards it.
    Half of it is for rows, however long the way to the server takes: then one takes longer.
    `duty`: share of the time a run works; 0.5 rests as long as it worked, 1 never rests.
    `time_budget`: the run leaves between two windows once it is over.
    `row_budget`: at most this many rows a run; None is no limit.
    `lock_timeout`: how long a statement waits for a row another session holds.
    `lease_ttl`: how long a dead worker's lease blocks the next run; renewed at a third of it.
    `first_window_rows`: rows the first window aims at, before anything was measured.
    `health`: from where on the database is too busy for us.
    `only_between`: the maintenance window outside of which a run does not work; None is always.
    `workers`: at most so many share a run; 1 never splits it.
    `split_above_rows`: a run is split from so many rows on that the planner expects to go.
    """

    batch_target: timedelta = timedelta(milliseconds=250)
    duty: float = 0.5
    time_budget: timedelta = timedelta(minutes=50)
    row_budget: int | None = None
    lock_timeout: timedelta = timedelta(milliseconds=200)
    lease_ttl: timedelta = timedelta(seconds=30)
    first_window_rows: int = 2_000
    health: HealthLimits = field(default_factory=HealthLimits)
    only_between: MaintenanceHours | None = None
    workers: int = 1
    split_above_rows: int = 1_000_000

    @property
    def statement_timeout(self) -> timedelta:
        """Four targets, at least 5 s: a window that takes longer is halved, not waited for."""
        return max(4 * self.batch_target, timedelta(seconds=5))
