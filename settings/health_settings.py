"""`[health]`: from where on a database is too busy; for all policies, or below one of them."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator

from housekeeping.policies.health import HealthLimits
from settings.durations import Duration, between
from settings.section import Section
from settings.sizes import Size
from settings.values import Expression, Name, Switch, whole

_MS = timedelta(milliseconds=1)
_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)
_LIMITS = HealthLimits()


def _names(value: object) -> object:
    """Return one name as a list of it, as who has one standby writes it."""
    return [value] if isinstance(value, str) else value


Names = Annotated[tuple[Name, ...], BeforeValidator(_names)]


class HealthSettings(Section):
    """From where on a run waits until the database is well again. See docs/pacing.md.

    `enabled`: false asks no signal; flags, budgets and the duty ratio still count.
    `max_replication_lag`, `max_replication_bytes`: how far a standby may be behind, 100ms to 24h.
    `expected_standbys`: application_names; one that is missing stops the run.
    `ignored_standbys`: application_names and slots that don't count, as one delayed on purpose.
    `max_lock_waiters`: sessions that wait for a lock for over a second.
    `pause_during_autovacuum`: a vacuum on the run's table stops it; else it slows it down.
    `max_archive_backlog`: WAL segments that wait for the archive.
    `max_wal_rate`: WAL of the whole server in a second.
    `min_free_disk`, `free_disk_sql`: disk space to be left, and a query that tells it in bytes.
    `sql`: a query of your own; true, a number above zero or a text is a reason to wait.
    `patience`: how long a run waits before it ends, 0s to 24h.
    `yield_after`: how long somebody waits for a lock of ours before we give way, 50ms to 60s.
    """

    enabled: Switch = _LIMITS.enabled
    max_replication_lag: Annotated[Duration, between(100 * _MS, _DAY)] = _LIMITS.max_replication_lag
    max_replication_bytes: Size = _LIMITS.max_replication_bytes
    expected_standbys: Names = ()
    ignored_standbys: Names = ()
    max_lock_waiters: Annotated[int, whole(0, 100_000)] = _LIMITS.max_lock_waiters
    pause_during_autovacuum: Switch = _LIMITS.pause_during_autovacuum
    max_archive_backlog: Annotated[int, whole(0, 1_000_000)] = _LIMITS.max_archive_backlog
    max_wal_rate: Size | None = None
    min_free_disk: Size | None = None
    free_disk_sql: Expression | None = None
    sql: Expression | None = None
    patience: Annotated[Duration, between(timedelta(0), _DAY)] = _LIMITS.patience
    yield_after: Annotated[Duration, between(50 * _MS, 60 * _SECOND)] = _LIMITS.yield_after

    def limits(self, own: "HealthSettings | None" = None) -> HealthLimits:
        """Return what the engine asks; keys a policy gives itself win over these."""
        return HealthLimits(**{**_given(self), **(_given(own) if own else {})})


def _given(settings: HealthSettings) -> Mapping[str, Any]:
    return {key: getattr(settings, key) for key in settings.model_fields_set}
