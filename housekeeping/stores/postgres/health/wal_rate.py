"""WAL the whole server writes a second, ours included."""

from dataclasses import dataclass

from psycopg2 import sql

from housekeeping.policies.health import HealthLimits, Reading, Verdict
from housekeeping.stores.postgres.health.signals import Seen, graded, size_told

_MEASUREMENT = sql.SQL(
    """(
    SELECT json_build_object(
        'bytes', pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0'),
        'at', extract(epoch FROM clock_timestamp())))"""
)


@dataclass(frozen=True)
class WalRate:
    """Stops while more is written than the limit; asks the sample before for the difference."""

    limits: HealthLimits
    name: str = "wal_rate"
    own: bool = False

    @property
    def measurement(self) -> sql.Composable:
        return _MEASUREMENT

    def judge(self, seen: Seen) -> Reading:
        limit, now, before = self.limits.max_wal_rate, seen.facts, seen.before
        if limit is None or before is None or now["at"] <= before["at"]:
            return Reading(self.name, Verdict.GO, "not measured yet")
        rate = (now["bytes"] - before["bytes"]) / (now["at"] - before["at"])
        verdict = graded(rate, limit, holding=seen.holding)
        told = f"the server writes {size_told(rate)} of WAL a second"
        return Reading(self.name, verdict, told)

    def unknown(self, why: str) -> Reading:
        return Reading(self.name, Verdict.SLOW, f"the WAL rate can't be told: {why}")
