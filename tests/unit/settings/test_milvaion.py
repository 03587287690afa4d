from datetime import timedelta

from housekeeping.policies.pace import Pace
from housekeeping.policies.purge import (
    Age,
    Equals,
    ExpiryRule,
    KeptBy,
    PurgePolicy,
    TableName,
    YoungerThan,
)
from tests.unit.settings.conftest import REQUIRED, Load

DAY = timedelta(days=1)


def _status(reason: str, value: int, days: int) -> ExpiryRule:
    return ExpiryRule(reason=reason, keep_for=days * DAY, column="Status", value=value)


def test_an_empty_section_keeps_occurrences_as_the_documentation_says(load: Load) -> None:
    suite = load(REQUIRED + "[milvaion]\n")
    assert suite.policies("occurrences.retention") == (
        PurgePolicy(
            operation="occurrences.retention",
            name="milvaion",
            database_url="postgresql://me@db/jobs",
            table=TableName("JobOccurrences"),
            age=Age(columns=("EndTime", "CreatedAt"), never_before="CreatedAt"),
            rules=(
                _status("completed", 2, 30),
                _status("failed", 3, 90),
                _status("cancelled", 4, 30),
                _status("timed_out", 5, 30),
                _status("unknown", 6, 90),
                _status("skipped", 7, 30),
            ),
            kept_by=(
                KeptBy(
                    table="FailedOccurrences",
                    column="OccurrenceId",
                    refers_to="Id",
                    while_any=(
                        Equals(column="Resolved", values=(False,)),
                        YoungerThan(column="FailedAt", keep_for=180 * DAY),
                    ),
                ),
                KeptBy(
                    table="WorkflowRuns",
                    column="Id",
                    refers_to="WorkflowRunId",
                    while_any=(Equals(column="Status", values=(0, 1)),),
                    optional=True,
                ),
            ),
            child_names=(("JobOccurrenceLogs", "logs"), ("FailedOccurrences", "dead_letters")),
            vacuum_after_rows=10_000,
            pace=Pace(),
        ),
    )


def test_dead_letters_are_kept_for_180_days(load: Load) -> None:
    suite = load(REQUIRED + '[milvaion]\nschema = "jobs"\n')
    assert suite.policies("dead_letters.cleanup") == (
        PurgePolicy(
            operation="dead_letters.cleanup",
            name="milvaion",
            database_url="postgresql://me@db/jobs",
            table=TableName("FailedOccurrences", "jobs"),
            age=Age(columns=("FailedAt",)),
            rules=(
                ExpiryRule(reason="resolved", keep_for=180 * DAY, column="Resolved", value=True),
                ExpiryRule(reason="unresolved", keep_for=180 * DAY, column="Resolved", value=False),
            ),
            pace=Pace(first_window_rows=500),
        ),
    )


def test_resolved_letters_may_go_earlier_and_free_their_occurrence_then(load: Load) -> None:
    suite = load(
        REQUIRED + '[milvaion.dead_letters]\nkeep_for = "60d"\nresolved_keep_for = "10d"\n'
    )
    (letters,) = suite.policies("dead_letters.cleanup")
    (occurrences,) = suite.policies("occurrences.retention")
    assert [rule.keep_for for rule in letters.rules] == [10 * DAY, 60 * DAY]
    assert YoungerThan(column="FailedAt", keep_for=10 * DAY) in occurrences.kept_by[0].while_any


def test_its_own_database_and_lease_are_used(load: Load) -> None:
    suite = load(
        REQUIRED + 'lease_ttl = "5s"\n[milvaion]\ndatabase_url = "postgresql://own/milvaion"\n'
    )
    assert {policy.database_url for policy in suite.all_policies()} == {"postgresql://own/milvaion"}
    assert {policy.pace.lease_ttl for policy in suite.all_policies()} == {timedelta(seconds=5)}
