"""How far standbys are behind: by time and by bytes, as the time is not told while one stands still."""

from dataclasses import dataclass

from psycopg2 import sql

from housekeeping.policies.health import HealthLimits, Reading, Verdict
from housekeeping.stores.postgres.health.signals import (
    GRANT_MONITOR,
    Facts,
    Seen,
    graded,
    size_told,
)

REPLICATION = "replication_lag"

# What a receiver that writes WAL away without replaying it (pg_receivewal, Barman) tells is how far
# it has written. A base backup under way is no standby. Without pg_monitor all but the name is null.
_MEASUREMENT = sql.SQL(
    """(
    SELECT json_build_object('standbys', coalesce(json_agg(json_build_object(
        'name', r.application_name,
        'state', r.state,
        'bytes', pg_wal_lsn_diff(
            pg_current_wal_lsn(), coalesce(r.replay_lsn, r.flush_lsn, r.write_lsn)),
        'seconds', extract(epoch FROM r.replay_lag),
        'logical', EXISTS (SELECT FROM pg_replication_slots s
                           WHERE s.active_pid = r.pid AND s.slot_type = 'logical')
        )), '[]'))
    FROM pg_stat_replication r
    WHERE r.state IS DISTINCT FROM 'backup' AND r.application_name <> 'pg_basebackup')"""
)


@dataclass(frozen=True)
class ReplicationLag:
    """Stops while a standby is too far behind, or while nobody can tell how far.

    No standby, and none expected by name, is nothing to wait for. Logical subscribers count only
    where they are expected: they need not read what we write.
    """

    limits: HealthLimits
    name: str = REPLICATION
    own: bool = False

    @property
    def measurement(self) -> sql.Composable:
        return _MEASUREMENT

    def judge(self, seen: Seen) -> Reading:
        standbys = [each for each in seen.facts["standbys"] if self._counts(each)]
        missing = [
            name
            for name in self.limits.expected_standbys
            if name not in {each["name"] for each in standbys}
        ]
        readings = [self._reading(each, seen) for each in standbys]
        readings += [
            Reading(self.name, Verdict.STOP, f"standby {name} is expected and not connected")
            for name in missing
        ]
        nothing = Reading(self.name, Verdict.GO, "no standby")
        return max(readings, key=lambda reading: reading.verdict, default=nothing)

    def unknown(self, why: str) -> Reading:
        return Reading(self.name, Verdict.STOP, f"the replication lag can't be told: {why}")

    def _counts(self, standby: Facts) -> bool:
        name = standby["name"]
        if name in self.limits.expected_standbys:
            return True
        return name not in self.limits.ignored_standbys and not standby["logical"]

    def _reading(self, standby: Facts, seen: Seen) -> Reading:
        who = f"standby {standby['name'] or 'without a name'}"
        if standby["bytes"] is None:
            hidden = standby["state"] is None
            remedy = f"; {GRANT_MONITOR.format(role=seen.role)}" if hidden else ""
            return Reading(self.name, Verdict.STOP, f"the lag of {who} can't be told{remedy}")
        behind = max(0, int(standby["bytes"]))
        # The time is that of the last confirmed change: it stays for a while after the last byte.
        seconds = float(standby["seconds"] or 0) if behind else 0.0
        longest = self.limits.max_replication_lag.total_seconds()
        verdict = max(
            graded(behind, self.limits.max_replication_bytes, holding=seen.holding),
            graded(seconds, longest, holding=seen.holding),
        )
        return Reading(self.name, verdict, f"{who} is {size_told(behind)}, {seconds:.1f} s behind")
