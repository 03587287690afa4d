"""`[milvaion]`: finished job occurrences, deleted or archived, and their dead letters."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator, Field

from housekeeping.policies.archive import ArchiveIndex, ArchiveTo
from housekeeping.policies.purge import (
    Age,
    Equals,
    ExpiryRule,
    KeptBy,
    PurgePolicy,
    TableName,
    YoungerThan,
)
from settings.addresses import DatabaseUrl, RedisUrl
from settings.archive import MonthOf
from settings.archives import ArchiveExpiry
from settings.durations import KeepFor
from settings.maintenance import MilvaionMaintenance
from settings.maintenance_config import STATUS_NAMES
from settings.policy_settings import Offer, PolicySettings, RowsOrNever
from settings.section import Section
from settings.values import Name, Switch, whole

RETENTION = "occurrences.retention"
ARCHIVE = "occurrences.archive"
DEAD_LETTERS = "dead_letters.cleanup"
POLICY_NAME = "milvaion"
VACUUM_AFTER_ROWS = 10_000  # VacuumThreshold of Milvaion's own job

_STATUSES = {name: status for status, name in STATUS_NAMES.items()}
_LOGS = "JobOccurrenceLogs"
# Those Milvaion's own job makes with CreateIndexOnArchive.
_ARCHIVE_INDEXES = (
    ArchiveIndex(columns=("JobId",)),
    ArchiveIndex(columns=("CorrelationId",)),
    ArchiveIndex(columns=("EndTime",)),
    ArchiveIndex(columns=("OccurrenceId",), table=_LOGS),
    ArchiveIndex(columns=("Timestamp",), table=_LOGS),
)
# A failed dispatch leaves EndTime empty for good, so CreatedAt steps in.
_AGE = Age(columns=("EndTime", "CreatedAt"), never_before="CreatedAt")
_CHILD_NAMES = ((_LOGS, "logs"), ("FailedOccurrences", "dead_letters"))
_PENDING_AND_RUNNING = (0, 1)  # WorkflowStatus


class OccurrenceRetention(PolicySettings):
    """How long finished occurrences are kept, by how they ended.

    The defaults of the first four are those of Milvaion's own documentation; unknown and skipped
    ones are never removed by Milvaion itself, so they grow without bound there.
    """

    vacuum_after_rows: RowsOrNever = VACUUM_AFTER_ROWS
    completed_keep_for: KeepFor = timedelta(days=30)
    failed_keep_for: KeepFor = timedelta(days=90)
    cancelled_keep_for: KeepFor = timedelta(days=30)
    timed_out_keep_for: KeepFor = timedelta(days=30)
    unknown_keep_for: KeepFor = timedelta(days=90)
    skipped_keep_for: KeepFor = timedelta(days=30)

    def rules(self) -> tuple[ExpiryRule, ...]:
        ages = {
            "completed": self.completed_keep_for,
            "failed": self.failed_keep_for,
            "cancelled": self.cancelled_keep_for,
            "timed_out": self.timed_out_keep_for,
            "unknown": self.unknown_keep_for,
            "skipped": self.skipped_keep_for,
        }
        return tuple(
            ExpiryRule(reason=reason, keep_for=ages[reason], column="Status", value=status)
            for reason, status in _STATUSES.items()
        )


def _ended_how(value: object) -> tuple[str, ...]:
    known = tuple(_STATUSES)
    if not isinstance(value, list | tuple) or not value or not set(value) <= set(known):
        raise ValueError(f"give a list of final statuses, of {', '.join(known)}")
    return tuple(status for status in known if status in value)


class OccurrenceArchive(PolicySettings):
    """Which finished occurrences move to `PREFIX_2024_01`, with their log rows and dead letters.

    `keep_for`: how long they stay in their own table. `statuses`: how they ended.
    `prefix`, `schema`, `month_of`: as in [tables.NAME.archive].
    `indexes`: builds Milvaion's three indexes on each dated table, and two on that of the logs.
    """

    vacuum_after_rows: RowsOrNever = VACUUM_AFTER_ROWS
    keep_for: KeepFor = timedelta(days=90)
    statuses: Annotated[tuple[str, ...], BeforeValidator(_ended_how)] = (
        "completed",
        "failed",
        "cancelled",
        "timed_out",
    )
    prefix: Name = "JobOccurrences_Archive"
    schema_name: Name | None = Field(default=None, alias="schema")
    month_of: MonthOf = "row"
    indexes: Switch = True

    def rules(self) -> tuple[ExpiryRule, ...]:
        return tuple(
            ExpiryRule(
                reason=status, keep_for=self.keep_for, column="Status", value=_STATUSES[status]
            )
            for status in self.statuses
        )

    def destination(self) -> ArchiveTo:
        return ArchiveTo(
            prefix=self.prefix,
            schema=self.schema_name,
            month_of=self.month_of,
            suffixes=((_LOGS, "Logs"), ("FailedOccurrences", "DeadLetters")),
            indexes=_ARCHIVE_INDEXES if self.indexes else (),
        )


class DeadLetterCleanup(PolicySettings):
    """How long dead letters are kept after they failed.

    `keep_for`: for both kinds. `resolved_keep_for`, `unresolved_keep_for`: for one kind.
    """

    batch_rows: Annotated[int, whole(1, 1_000_000)] = 500
    keep_for: KeepFor = timedelta(days=180)
    resolved_keep_for: KeepFor | None = None
    unresolved_keep_for: KeepFor | None = None

    @property
    def resolved_age(self) -> timedelta:
        return self.keep_for if self.resolved_keep_for is None else self.resolved_keep_for

    @property
    def unresolved_age(self) -> timedelta:
        return self.keep_for if self.unresolved_keep_for is None else self.unresolved_keep_for

    def rules(self) -> tuple[ExpiryRule, ...]:
        return (
            ExpiryRule(
                reason="resolved", keep_for=self.resolved_age, column="Resolved", value=True
            ),
            ExpiryRule(
                reason="unresolved", keep_for=self.unresolved_age, column="Resolved", value=False
            ),
        )


class Milvaion(Section):
    """Milvaion's PostgreSQL and Redis. The section being there switches its policies on.

    `database_url`: left out, the one for all systems. `redis_url`: Milvaion's own Redis.
    `maintenance_config`: path of an appsettings.json whose `MaintenanceConfig` is the base; keys
    given here win over it.
    `schema`: left out, tables are looked up in the search path, as Milvaion does.
    """

    database_url: DatabaseUrl | None = None
    redis_url: RedisUrl | None = None
    maintenance_config: Name | None = None
    schema_name: Name | None = Field(default=None, alias="schema")
    retention: OccurrenceRetention = OccurrenceRetention()
    dead_letters: DeadLetterCleanup = DeadLetterCleanup()
    archive: OccurrenceArchive | None = None
    archive_expiry: ArchiveExpiry | None = None
    maintenance: MilvaionMaintenance = MilvaionMaintenance()

    def policies(self, database_url: str, lease_ttl: timedelta) -> Iterator[Offer]:
        """Tell what the engine may run.

        Archiving is on the schedule once its section is there: by their default ages retention
        would delete most rows before they are archived, so one of the two has to be chosen.
        """
        yield Offer(self.retention, self._retention_policy(database_url, lease_ttl))
        yield Offer(self.dead_letters, self._dead_letter_policy(database_url, lease_ttl))
        archive = self.archive or OccurrenceArchive()
        yield Offer(
            archive,
            self._archive_policy(archive, database_url, lease_ttl),
            scheduled=self.archive is not None,
        )
        maintenance = self.maintenance.policy_in(
            self.schema_name, POLICY_NAME, database_url, lease_ttl
        )
        yield Offer(self.maintenance, maintenance)

    @property
    def occurrences(self) -> TableName:
        return TableName("JobOccurrences", self.schema_name)

    def _retention_policy(self, database_url: str, lease_ttl: timedelta) -> PurgePolicy:
        return PurgePolicy(
            operation=RETENTION,
            name=POLICY_NAME,
            database_url=database_url,
            table=self.occurrences,
            age=_AGE,
            rules=self.retention.rules(),
            where=self.retention.where,
            kept_by=(self._dead_letter_keeps_its_occurrence(), _run_keeps_its_steps()),
            child_names=_CHILD_NAMES,
            vacuum_after_rows=self.retention.vacuum_after_rows,
            pace=self.retention.pace(lease_ttl),
        )

    def _archive_policy(
        self, archive: OccurrenceArchive, database_url: str, lease_ttl: timedelta
    ) -> PurgePolicy:
        return PurgePolicy(
            operation=ARCHIVE,
            name=POLICY_NAME,
            database_url=database_url,
            table=self.occurrences,
            age=_AGE,
            rules=archive.rules(),
            where=archive.where,
            kept_by=(_unresolved_dead_letter_keeps_its_occurrence(), _run_keeps_its_steps()),
            child_names=_CHILD_NAMES,
            archive=archive.destination(),
            vacuum_after_rows=archive.vacuum_after_rows,
            pace=archive.pace(lease_ttl),
        )

    def _dead_letter_policy(self, database_url: str, lease_ttl: timedelta) -> PurgePolicy:
        return PurgePolicy(
            operation=DEAD_LETTERS,
            name=POLICY_NAME,
            database_url=database_url,
            table=TableName("FailedOccurrences", self.schema_name),
            age=Age(columns=("FailedAt",)),
            rules=self.dead_letters.rules(),
            where=self.dead_letters.where,
            vacuum_after_rows=self.dead_letters.vacuum_after_rows,
            pace=self.dead_letters.pace(lease_ttl),
        )

    def _dead_letter_keeps_its_occurrence(self) -> KeptBy:
        # Deleting an occurrence cascades to its dead letter, which would go before its time.
        return KeptBy(
            table="FailedOccurrences",
            column="OccurrenceId",
            refers_to="Id",
            while_any=(
                Equals(column="Resolved", values=(False,)),
                YoungerThan(column="FailedAt", keep_for=self.dead_letters.resolved_age),
            ),
        )


def _unresolved_dead_letter_keeps_its_occurrence() -> KeptBy:
    # Somebody still has to look at it, and looks in the dead letter queue. A resolved one goes to
    # the archive with its occurrence, whatever its own retention says: nothing of it is lost.
    return KeptBy(
        table="FailedOccurrences",
        column="OccurrenceId",
        refers_to="Id",
        while_any=(Equals(column="Resolved", values=(False,)),),
    )


def _run_keeps_its_steps() -> KeptBy:
    # A workflow that still runs looks its finished steps up. Workflows came with Milvaion 2.
    return KeptBy(
        table="WorkflowRuns",
        column="Id",
        refers_to="WorkflowRunId",
        while_any=(Equals(column="Status", values=_PENDING_AND_RUNNING),),
        optional=True,
    )
