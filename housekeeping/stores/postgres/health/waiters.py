"""Sessions that wait for a lock, whoever holds it: the database is contended already."""

from dataclasses import dataclass

from psycopg2 import sql

from housekeeping.policies.health import HealthLimits, Reading, Verdict
from housekeeping.stores.postgres.health.signals import Seen, graded

# pg_locks shows everybody's waits to every role; pg_stat_activity would hide them. Advisory locks are
# left out: who waits for one is often a standby for a leader, and means to wait.
_MEASUREMENT = sql.SQL(
    """(
    SELECT json_build_object('waiters', count(DISTINCT l.pid))
    FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE NOT l.granted AND l.locktype <> 'advisory'
      AND l.waitstart < clock_timestamp() - interval '1 second'
      AND a.datname = current_database() AND a.application_name NOT LIKE 'hk:%%')"""
)


@dataclass(frozen=True)
class LockWaiters:
    """Stops while more sessions than the limit have waited for over a second."""

    limits: HealthLimits
    name: str = "lock_waiters"
    own: bool = False

    @property
    def measurement(self) -> sql.Composable:
        return _MEASUREMENT

    def judge(self, seen: Seen) -> Reading:
        waiters = int(seen.facts["waiters"])
        verdict = graded(waiters, self.limits.max_lock_waiters, holding=seen.holding)
        told = f"{waiters} sessions have waited for a lock for over a second"
        return Reading(self.name, verdict, told)

    def unknown(self, why: str) -> Reading:
        return Reading(self.name, Verdict.SLOW, f"lock waiters can't be counted: {why}")
