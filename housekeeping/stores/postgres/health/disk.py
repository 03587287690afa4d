"""Space left where the server keeps its data: deleting writes WAL before it frees anything.

235 to 290 bytes of WAL a row were measured, 446 for a row that is archived, without full-page images.
"""

from dataclasses import dataclass
from pathlib import Path

from psycopg2 import sql

from housekeeping.policies.health import HealthLimits, Reading, Verdict
from housekeeping.stores.files.space import free_bytes
from housekeeping.stores.postgres.health.signals import GRANT_MONITOR, Seen, own_query, size_told

# Over a Unix socket the server shares our kernel; an address, be it 127.0.0.1, may lead elsewhere.
_LOCAL = sql.SQL(
    """(
    SELECT json_build_object(
        'local', inet_server_addr() IS NULL,
        'directory', CASE WHEN pg_has_role('pg_read_all_settings', 'USAGE')
                     THEN current_setting('data_directory') END))"""
)
_RELIEF = 1.25  # a run that was stopped goes on with so many times the limit free


@dataclass(frozen=True)
class DiskHeadroom:
    """Stops while less than `min_free_disk` is left; PostgreSQL itself can't tell how much is."""

    limits: HealthLimits
    name: str = "disk_headroom"

    @property
    def own(self) -> bool:
        return self.limits.free_disk_sql is not None

    @property
    def measurement(self) -> sql.Composable:
        query = self.limits.free_disk_sql
        if query is None:
            return _LOCAL
        return sql.SQL("(SELECT json_build_object('free', {}))").format(own_query(query))

    def judge(self, seen: Seen) -> Reading:
        limit, facts = self.limits.min_free_disk or 0, seen.facts
        free: object = facts.get("free")
        if self.limits.free_disk_sql is None:
            if not facts["local"]:
                return self.unknown("the server is not on this machine; give free_disk_sql")
            if facts["directory"] is None:
                return self.unknown(GRANT_MONITOR.format(role=seen.role))
            free = free_bytes(Path(facts["directory"]))
        if not isinstance(free, int | float):
            return self.unknown(f"the answer is {free!r}")
        needed = limit * _RELIEF if seen.holding else limit
        verdict = Verdict.STOP if float(free) < needed else Verdict.GO
        return Reading(self.name, verdict, f"{size_told(float(free))} of disk are free")

    def unknown(self, why: str) -> Reading:
        # Asked for, so not passed over: but without a remedy at hand nobody's night should end.
        return Reading(self.name, Verdict.SLOW, f"free disk space can't be told: {why}")
