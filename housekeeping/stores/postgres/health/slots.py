"""Replication slots that more WAL would break, or whose consumer is away."""

from dataclasses import dataclass

from psycopg2 import sql

from housekeeping.policies.health import HealthLimits, Reading, Verdict
from housekeeping.stores.postgres.health.signals import Facts, Seen, size_told

_MEASUREMENT = sql.SQL(
    """(
    SELECT json_build_object('slots', coalesce(json_agg(json_build_object(
        'name', slot_name, 'physical', slot_type = 'physical', 'active', active,
        'status', wal_status, 'safe', safe_wal_size,
        'retained', CASE WHEN restart_lsn IS NOT NULL
                    THEN pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) END)), '[]'))
    FROM pg_replication_slots WHERE NOT temporary)"""
)


@dataclass(frozen=True)
class ReplicationSlots:
    """Stops before our WAL costs a slot its consumer (max_slot_wal_keep_size).

    A physical slot that nobody reads is a standby that is away: that slows a run down.
    """

    limits: HealthLimits
    name: str = "replication_slots"
    own: bool = False

    @property
    def measurement(self) -> sql.Composable:
        return _MEASUREMENT

    def judge(self, seen: Seen) -> Reading:
        slots = [s for s in seen.facts["slots"] if s["name"] not in self.limits.ignored_standbys]
        nothing = Reading(self.name, Verdict.GO, "no replication slot")
        return max(map(self._reading, slots), key=lambda each: each.verdict, default=nothing)

    def unknown(self, why: str) -> Reading:
        return Reading(self.name, Verdict.SLOW, f"replication slots can't be looked at: {why}")

    def _reading(self, slot: Facts) -> Reading:
        who, bounds = f"replication slot {slot['name']}", self.limits.max_replication_bytes
        safe, retained = slot["safe"], int(slot["retained"] or 0)
        if slot["status"] == "lost":
            return Reading(self.name, Verdict.GO, f"{who} is lost already; drop it")
        if slot["status"] == "unreserved" or (safe is not None and int(safe) < bounds):
            left = size_told(max(0, int(safe or 0)))
            return Reading(self.name, Verdict.STOP, f"{who} is lost after {left} more of WAL")
        if slot["physical"] and not slot["active"] and retained > bounds:
            told = f"{who} has no reader and keeps {size_told(retained)} of WAL; drop it if unused"
            return Reading(self.name, Verdict.SLOW, told)
        return Reading(self.name, Verdict.GO, f"{who} keeps {size_told(retained)} of WAL")
