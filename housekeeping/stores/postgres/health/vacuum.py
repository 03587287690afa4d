"""A vacuum on the run's own table: it reads the same pages, and what we add it has to do again."""

from dataclasses import dataclass

from psycopg2 import sql

from housekeeping.policies.health import HealthLimits, Reading, Verdict
from housekeeping.stores.postgres.health.signals import GRANT_MONITOR, Seen

_MEASUREMENT = sql.SQL(
    """(
    SELECT json_build_object('vacuums', coalesce(json_agg(json_build_object(
        'table', relid::bigint, 'phase', phase, 'pid', pid)), '[]'))
    FROM pg_stat_progress_vacuum WHERE datid = (
        SELECT oid FROM pg_database WHERE datname = current_database()))"""
)


@dataclass(frozen=True)
class VacuumOnTable:
    """Slows a run down, or stops it, while its table or a table it takes rows along in is vacuumed.

    Which table a vacuum is on is hidden from roles without pg_monitor: then any vacuum counts, and
    slows only.
    """

    limits: HealthLimits
    tables: frozenset[int]
    name: str = "autovacuum"
    own: bool = False

    @property
    def measurement(self) -> sql.Composable:
        return _MEASUREMENT

    def judge(self, seen: Seen) -> Reading:
        vacuums = seen.facts["vacuums"]
        ours = [each for each in vacuums if each["table"] in self.tables]
        hidden = [each for each in vacuums if each["table"] is None]
        if ours:
            verdict = Verdict.STOP if self.limits.pause_during_autovacuum else Verdict.SLOW
            told = f"process {ours[0]['pid']} vacuums the table ({ours[0]['phase']})"
            return Reading(self.name, verdict, told)
        if hidden and self.tables:
            remedy = GRANT_MONITOR.format(role=seen.role)
            told = f"process {hidden[0]['pid']} vacuums a table that is hidden from us; {remedy}"
            return Reading(self.name, Verdict.SLOW, told)
        return Reading(self.name, Verdict.GO, f"{len(vacuums)} vacuums, none on the table")

    def unknown(self, why: str) -> Reading:
        return Reading(self.name, Verdict.SLOW, f"running vacuums can't be looked at: {why}")
