"""`[milvaion]`: finished job occurrences and their dead letters."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated

from pydantic import Field

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
from settings.durations import KeepFor
from settings.policy_settings import PolicySettings
from settings.section import Section
from settings.values import Name, whole

RETENTION = "occurrences.retention"
DEAD_LETTERS = "dead_letters.cleanup"
POLICY_NAME = "milvaion"

# JobOccurrenceStatus; 0 Queued and 1 Running are not final and never expire.
_STATUSES = {
    "completed": 2,
    "failed": 3,
    "cancelled": 4,
    "timed_out": 5,
    "unknown": 6,
    "skipped": 7,
}
_PENDING_AND_RUNNING = (0, 1)  # WorkflowStatus


class OccurrenceRetention(PolicySettings):
    """How long finished occurrences are kept, by how they ended.

    The defaults of the first four are those of Milvaion's own documentation; unknown and skipped
    ones are never removed by Milvaion itself, so they grow without bound there.
    """

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
    """Milvaion's PostgreSQL and Redis. The section being there switches both policies on.

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

    def policies(
        self, database_url: str, lease_ttl: timedelta
    ) -> Iterator[tuple[PolicySettings, PurgePolicy]]:
        """Tell what the engine may run, each with the settings it came from."""
        yield self.retention, self._retention_policy(database_url, lease_ttl)
        yield self.dead_letters, self._dead_letter_policy(database_url, lease_ttl)

    def _retention_policy(self, database_url: str, lease_ttl: timedelta) -> PurgePolicy:
        return PurgePolicy(
            operation=RETENTION,
            name=POLICY_NAME,
            database_url=database_url,
            table=TableName("JobOccurrences", self.schema_name),
            # A failed dispatch leaves EndTime empty for good, so CreatedAt steps in.
            age=Age(columns=("EndTime", "CreatedAt"), never_before="CreatedAt"),
            rules=self.retention.rules(),
            where=self.retention.where,
            kept_by=(self._dead_letter_keeps_its_occurrence(), _run_keeps_its_steps()),
            child_names=(("JobOccurrenceLogs", "logs"), ("FailedOccurrences", "dead_letters")),
            pace=self.retention.pace(lease_ttl),
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


def _run_keeps_its_steps() -> KeptBy:
    # A workflow that still runs looks its finished steps up. Workflows came with Milvaion 2.
    return KeptBy(
        table="WorkflowRuns",
        column="Id",
        refers_to="WorkflowRunId",
        while_any=(Equals(column="Status", values=_PENDING_AND_RUNNING),),
        optional=True,
    )
