"""Milvaion's own configuration: the section `MaintenanceConfig` of its appsettings.json.

Keys, sections and defaults are upstream's; its documentation page wins over its classes where the
two differ (TimedOutRetentionDays is 30 there and 60 in the class). Upstream checks no value, so
the messages say what it would have done. UnknownRetentionDays, SkippedRetentionDays,
ResolvedRetentionDays and UnresolvedRetentionDays are additions of ours.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, ConfigDict
from pydantic.alias_generators import to_pascal

from settings.addresses import DatabaseUrl, RedisUrl
from settings.connection_strings import npgsql_to_url, stackexchange_to_url
from settings.durations import LONGEST
from settings.section import Section
from settings.values import Name, Switch, listed, read_name, read_whole, whole

SECTION = "MaintenanceConfig"
_LARGEST_BATCH = 1_000_000
# JobOccurrenceStatus; 0 Queued and 1 Running are not final.
STATUS_NAMES = {
    2: "completed",
    3: "failed",
    4: "cancelled",
    5: "timed_out",
    6: "unknown",
    7: "skipped",
}
# PostgreSQL cuts names at 63 bytes; the longest we append is `_2026_01_DeadLetters`.
_LONGEST_PREFIX = 63 - len("_2026_01_DeadLetters")


def _days(value: object) -> int:
    days = read_whole(value)
    expected = f"give a whole number of days from 1 to {LONGEST.days}"
    if days is None:
        raise ValueError(expected)
    if days == 0:
        raise ValueError(f"upstream would delete every finished row at 0 days; {expected}")
    if days < 0:
        raise ValueError(
            f"negative days put the cutoff in the future, and upstream would delete every "
            f"finished row; {expected}"
        )
    if days > LONGEST.days:
        raise ValueError(expected)
    return days


def _batch_size(value: object) -> int:
    size = read_whole(value)
    if size is not None and size <= 0:
        raise ValueError("upstream loops for ever at 0 and fails below; give 1 to 1000000")
    if size is None or size > _LARGEST_BATCH:
        raise ValueError("give a whole number from 1 to 1000000")
    return size


def _tables(value: object) -> tuple[str, ...]:
    tables = listed(value)
    if not isinstance(tables, list | tuple) or not tables:
        raise ValueError('give a list of table names such as ["JobOccurrences"]')
    return tuple(read_name(table) for table in tables)


def _statuses(value: object) -> tuple[int, ...]:
    expected = (
        "give a list of final statuses: 2 completed, 3 failed, 4 cancelled, 5 timed out, "
        "6 unknown, 7 skipped"
    )
    statuses = listed(value)
    if not isinstance(statuses, list | tuple) or not statuses:
        raise ValueError(expected)
    numbers = [read_whole(status) for status in statuses]
    known = [number for number in numbers if number in STATUS_NAMES]
    if len(known) != len(numbers):
        raise ValueError(f"only final statuses may leave the table; {expected}")
    return tuple(dict.fromkeys(number for number in known if number is not None))


def _key_prefix(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError('an empty prefix is every key of the store; give one such as "Milvaion:"')
    if set(value) & set("*?[]\\"):
        raise ValueError("is read as a pattern; give a prefix without * ? [ ] and backslash")
    return value


def _archive_prefix(value: object) -> str:
    prefix = read_name(value)
    if len(prefix.encode()) > _LONGEST_PREFIX:
        raise ValueError(
            f"PostgreSQL cuts names at 63 bytes; give at most {_LONGEST_PREFIX} bytes, "
            'so that "_2026_01_DeadLetters" still fits'
        )
    return prefix


def _vacuum_after(wanted: bool, rows: int) -> int | bool:  # noqa: FBT001 - two settings of upstream
    return max(1, rows) if wanted else False


def _npgsql(value: object) -> object:
    return npgsql_to_url(value) if isinstance(value, str) and value.strip() else value


def _stackexchange(value: object) -> object:
    return stackexchange_to_url(value) if isinstance(value, str) and value.strip() else value


Days = Annotated[int, BeforeValidator(_days)]
BatchSize = Annotated[int, BeforeValidator(_batch_size)]
Threshold = Annotated[int, whole(0)]


class AppSettings(Section):
    """A section of appsettings.json. As in .NET, keys know no case and null is not given."""

    model_config = ConfigDict(alias_generator=to_pascal)

    @classmethod
    def prepare(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        spelled = {to_pascal(name).lower(): to_pascal(name) for name in cls.model_fields}
        prepared: dict[str, Any] = {}
        for key, value in given.items():
            if value is None:
                continue
            name = spelled.get(str(key).lower(), key)
            if name in prepared:
                raise ValueError(f'"{name}" is given twice, in different case; keep one')
            prepared[name] = value
        return prepared


class OccurrenceRetention(AppSettings):
    completed_retention_days: Days = 30
    failed_retention_days: Days = 90
    cancelled_retention_days: Days = 30
    timed_out_retention_days: Days = 30
    unknown_retention_days: Days = 90
    skipped_retention_days: Days = 30
    batch_size: BatchSize = 1_000
    vacuum_after_cleanup: Switch = True
    vacuum_threshold: Threshold = 10_000


class FailedOccurrenceRetention(AppSettings):
    retention_days: Days = 180
    resolved_retention_days: Days | None = None
    unresolved_retention_days: Days | None = None
    batch_size: BatchSize = 500


class DatabaseMaintenance(AppSettings):
    enable_vacuum: Switch = True
    enable_analyze: Switch = True
    enable_reindex: Switch = False
    tables: Annotated[tuple[str, ...], BeforeValidator(_tables)] = (
        "JobOccurrences",
        "ScheduledJobs",
        "FailedOccurrences",
    )

    def as_section(self) -> dict[str, Any]:
        """Return the same wishes as `[milvaion.maintenance]` says them.

        Upstream does what is enabled whether or not there is need; here by need. Its default tables
        are those of its oldest generation, so only tables that were given are.
        """
        given = {"tables": list(self.tables)} if "tables" in self.model_fields_set else {}
        switches = {
            "vacuum": self.enable_vacuum,
            "analyze": self.enable_analyze,
            "reindex": self.enable_reindex,
        }
        return {**given, **{work: "by need" if on else "never" for work, on in switches.items()}}


class RedisCleanup(AppSettings):
    key_prefix: Annotated[str, BeforeValidator(_key_prefix)] = "Milvaion:JobScheduler:"
    clean_orphaned_job_cache: Switch = True
    clean_stale_locks: Switch = True
    clean_orphaned_running_states: Switch = True
    stale_lock_hours: Annotated[int, whole(1, LONGEST.days * 24)] = 24


class OccurrenceArchive(AppSettings):
    archive_after_days: Days = 90
    archive_table_prefix: Annotated[Name, BeforeValidator(_archive_prefix)] = (
        "JobOccurrences_Archive"
    )
    statuses_to_archive: Annotated[tuple[int, ...], BeforeValidator(_statuses)] = (2, 3, 4, 5)
    batch_size: BatchSize = 1_000
    create_index_on_archive: Switch = True
    vacuum_after_archive: Switch = True
    vacuum_threshold: Threshold = 10_000

    def as_section(self) -> dict[str, Any]:
        """Return the same wishes as `[milvaion.archive]` says them."""
        return {
            "keep_for": timedelta(days=self.archive_after_days),
            "statuses": [STATUS_NAMES[status] for status in self.statuses_to_archive],
            "prefix": self.archive_table_prefix,
            "indexes": self.create_index_on_archive,
            "batch_rows": self.batch_size,
            "vacuum_after_rows": _vacuum_after(self.vacuum_after_archive, self.vacuum_threshold),
        }


class ActivityLogRetention(AppSettings):
    retention_days: Days = 60


class NotificationRetention(AppSettings):
    seen_retention_days: Days = 30
    unseen_retention_days: Days = 60


class WorkflowRunRetention(AppSettings):
    completed_retention_days: Days = 30
    failed_retention_days: Days = 90
    cancelled_retention_days: Days = 30
    partially_completed_retention_days: Days = 60
    batch_size: BatchSize = 1_000
    vacuum_after_cleanup: Switch = True
    vacuum_threshold: Threshold = 1_000


class MaintenanceConfig(AppSettings):
    """All of `MaintenanceConfig`, sections no operation uses yet included."""

    UNUSED: ClassVar[tuple[str, ...]] = (
        "redis_cleanup",
        "activity_log_retention",
        "notification_retention",
        "workflow_run_retention",
    )

    database_connection_string: Annotated[DatabaseUrl, BeforeValidator(_npgsql)] | None = None
    redis_connection_string: Annotated[RedisUrl, BeforeValidator(_stackexchange)] | None = None
    occurrence_retention: OccurrenceRetention = OccurrenceRetention()
    failed_occurrence_retention: FailedOccurrenceRetention = FailedOccurrenceRetention()
    database_maintenance: DatabaseMaintenance = DatabaseMaintenance()
    redis_cleanup: RedisCleanup = RedisCleanup()
    occurrence_archive: OccurrenceArchive = OccurrenceArchive()
    activity_log_retention: ActivityLogRetention = ActivityLogRetention()
    notification_retention: NotificationRetention = NotificationRetention()
    workflow_run_retention: WorkflowRunRetention = WorkflowRunRetention()

    def unused_sections(self) -> tuple[str, ...]:
        """Return the sections that were given and that no operation uses yet."""
        return tuple(
            f"{SECTION}.{to_pascal(name)}" for name in self.UNUSED if name in self.model_fields_set
        )

    def as_milvaion_section(self) -> dict[str, Any]:
        """Return the same wishes as `[milvaion]` says them."""
        kept = self.occurrence_retention
        letters = self.failed_occurrence_retention
        ages = {
            "keep_for": letters.retention_days,
            "resolved_keep_for": letters.resolved_retention_days,
            "unresolved_keep_for": letters.unresolved_retention_days,
        }
        addresses = {
            "database_url": self.database_connection_string,
            "redis_url": self.redis_connection_string,
        }
        archive = {}
        if (
            "occurrence_archive" in self.model_fields_set
        ):  # without it, archiving runs when asked to
            archive = {"archive": self.occurrence_archive.as_section()}
        maintenance = {}
        if "database_maintenance" in self.model_fields_set:
            maintenance = {"maintenance": self.database_maintenance.as_section()}
        return {
            **archive,
            **{key: url for key, url in addresses.items() if url is not None},
            "retention": {
                "completed_keep_for": timedelta(days=kept.completed_retention_days),
                "failed_keep_for": timedelta(days=kept.failed_retention_days),
                "cancelled_keep_for": timedelta(days=kept.cancelled_retention_days),
                "timed_out_keep_for": timedelta(days=kept.timed_out_retention_days),
                "unknown_keep_for": timedelta(days=kept.unknown_retention_days),
                "skipped_keep_for": timedelta(days=kept.skipped_retention_days),
                "batch_rows": kept.batch_size,
                "vacuum_after_rows": _vacuum_after(
                    kept.vacuum_after_cleanup, kept.vacuum_threshold
                ),
            },
            **maintenance,
            "dead_letters": {
                **{key: timedelta(days=days) for key, days in ages.items() if days is not None},
                "batch_rows": letters.batch_size,
            },
        }
