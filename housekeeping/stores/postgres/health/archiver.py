"""WAL segments that are not archived yet: every window of ours makes the queue longer."""

from dataclasses import dataclass

from psycopg2 import sql

from housekeeping.policies.health import HealthLimits, Reading, Verdict
from housekeeping.stores.postgres.health.signals import Seen, graded

# Segments are told by name: 8 hex digits each of timeline, log and segment within the log.
_MEASUREMENT = sql.SQL(
    """(
    SELECT json_build_object(
        'archives', current_setting('archive_mode') <> 'off',
        'failing', last_failed_time > coalesce(last_archived_time, '-infinity'),
        'failed', last_failed_wal,
        'current', pg_walfile_name(pg_current_wal_lsn()),
        'archived', last_archived_wal,
        'segments_per_log', 4294967296 / pg_size_bytes(current_setting('wal_segment_size')))
    FROM pg_stat_archiver)"""
)
_NAME_DIGITS = 24


@dataclass(frozen=True)
class ArchiveBacklog:
    """Stops while too many finished segments wait for the archive; slows while archiving fails."""

    limits: HealthLimits
    name: str = "archive_backlog"
    own: bool = False

    @property
    def measurement(self) -> sql.Composable:
        return _MEASUREMENT

    def judge(self, seen: Seen) -> Reading:
        facts = seen.facts
        if not facts["archives"]:
            return Reading(self.name, Verdict.GO, "WAL is not archived")
        per_log, failing = int(facts["segments_per_log"]), bool(facts["failing"])
        current = _number(facts["current"], per_log)
        # The archiver tries the oldest segment again and again: that one is not done, all before are.
        oldest = _number(facts["failed"], per_log) if failing else None
        if oldest is None and (last := _number(facts["archived"], per_log)) is not None:
            oldest = last + 1
        backlog = max(0, current - oldest) if current is not None and oldest is not None else 0
        verdict = graded(backlog, self.limits.max_archive_backlog, holding=seen.holding)
        told = f"{backlog} WAL segments wait for the archive"
        if failing:
            verdict = max(verdict, Verdict.SLOW)
            told += f"; archiving {facts['failed']} fails"
        return Reading(self.name, verdict, told)

    def unknown(self, why: str) -> Reading:
        return Reading(self.name, Verdict.SLOW, f"the WAL archive can't be looked at: {why}")


def _number(name: str | None, per_log: int) -> int | None:
    """Return a segment's number within its timeline; None for what is no segment's name."""
    if name is None or len(name) < _NAME_DIGITS:  # a timeline's .history file
        return None
    return int(name[8:16], 16) * per_log + int(name[16:24], 16)
