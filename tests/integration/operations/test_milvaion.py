"""Milvaion's three generations, by the policies that the settings make of `[milvaion]`."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.policies.errors import UnindexedForeignKey
from housekeeping.policies.purge import PurgePolicy
from housekeeping.policies.result import RunResult
from settings.loading import load
from tests.integration.conftest import DatabaseFactory
from tests.integration.database import Database
from tests.integration.runs import run

BOTH_WALKERS = pytest.mark.parametrize("walker", ["heap", "index"])
STATUSES = {2: 30, 3: 90, 4: 30, 5: 30, 6: 90, 7: 30}  # 0 queued and 1 running never expire
GENERATIONS = ["V1", "V2", "V3", "V1 bare", "V3 bare"]
JOB = "00000000-0000-0000-0000-000000000001"

Occur = Callable[..., str]


@pytest.fixture(params=GENERATIONS)
def generation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def milvaion(
    generation: str, new_database: DatabaseFactory, milvaion_schemas: dict[str, str]
) -> Database:
    """A Milvaion database of one generation, with one job."""
    database = new_database(milvaion_schemas[generation])
    database.run(
        'INSERT INTO "ScheduledJobs" ("Id", "ExecuteAt", "IsActive", "ConcurrentExecutionPolicy",'
        ' "JobNameInWorker", "Version") VALUES (%s, now(), true, 0, %s, 1)',
        JOB,
        "job",
    )
    return database


@pytest.fixture
def occur(milvaion: Database) -> Occur:
    """Writes an occurrence that ended, or without `ended` was created, so many days ago."""

    def insert(status: int, ended: float | None, created: float | None = None) -> str:
        return str(
            milvaion.one(
                'INSERT INTO "JobOccurrences" ("Id", "JobId", "JobVersion", "CorrelationId",'
                ' "Status", "EndTime", "CreatedAt", "DispatchRetryCount")'
                " VALUES (gen_random_uuid(), %s, 1, gen_random_uuid(), %s,"
                " now() - %s * interval '1 day', now() - %s * interval '1 day', 0)"
                ' RETURNING "Id"',
                JOB,
                status,
                ended,
                created if created is not None else (ended or 0) + 0.01,
            )
        )

    return insert


def dead_letter(database: Database, occurrence: str, failed: float, *, resolved: bool) -> None:
    database.run(
        'INSERT INTO "FailedOccurrences" ("Id", "JobId", "OccurrenceId", "CorrelationId",'
        ' "JobDisplayName", "JobNameInWorker", "FailedAt", "RetryCount", "FailureType", "Resolved")'
        " VALUES (gen_random_uuid(), %s, %s, gen_random_uuid(), 'a', 'b',"
        " now() - %s * interval '1 day', 3, 1, %s)",
        JOB,
        occurrence,
        failed,
        resolved,
    )


def policy_of(database: Database, operation: str, **settings: str) -> PurgePolicy:
    environment = {
        "HOUSEKEEPING__REDIS_URL": "redis://unused:6379/0",
        "HOUSEKEEPING__MILVAION__DATABASE_URL": database.url,
        "HOUSEKEEPING__MILVAION__RETENTION__DUTY": "1",
        **{f"HOUSEKEEPING__MILVAION__{key}": value for key, value in settings.items()},
    }
    (policy,) = load(environment).policies(operation)
    return policy


def retain(database: Database, around: Surroundings, walker: str, **settings: str) -> RunResult:
    database.run("ANALYZE")
    policy = policy_of(database, "occurrences.retention", **settings)
    return run(policy, around, walker=walker)


def ids(database: Database) -> set[str]:
    return set(database.column('SELECT "Id"::text FROM "JobOccurrences"'))


@BOTH_WALKERS
def test_each_status_is_kept_for_its_own_time_and_unfinished_ones_for_ever(
    milvaion: Database, around: Surroundings, occur: Occur, walker: str
) -> None:
    minute = timedelta(minutes=1) / timedelta(days=1)
    kept = {occur(status, days - minute) for status, days in STATUSES.items()}
    kept |= {occur(status, 5_000) for status in (0, 1)}
    kept |= {occur(status, None, 5_000) for status in (0, 1)}
    for status, days in STATUSES.items():
        occur(status, days + minute)

    result = retain(milvaion, around, walker)

    assert ids(milvaion) == kept
    assert result.total == 6
    assert {key: count for key, count in result.details.items() if count} == dict.fromkeys(
        ("completed", "failed", "cancelled", "timed_out", "unknown", "skipped"), 1
    )
    assert result.success


@BOTH_WALKERS
def test_an_occurrence_that_never_ended_is_as_old_as_its_creation(
    milvaion: Database, around: Surroundings, occur: Occur, walker: str
) -> None:
    kept = {occur(3, None, 89), occur(2, 1, 400)}
    occur(3, None, 91)

    retain(milvaion, around, walker)

    assert ids(milvaion) == kept


@BOTH_WALKERS
def test_a_dead_letter_protects_its_occurrence_until_it_is_resolved_and_old(
    milvaion: Database, around: Surroundings, occur: Occur, walker: str
) -> None:
    unresolved, young, old, both = (occur(3, 400) for _ in range(4))
    dead_letter(milvaion, unresolved, 400, resolved=False)
    dead_letter(milvaion, young, 179, resolved=True)
    dead_letter(milvaion, old, 181, resolved=True)
    dead_letter(milvaion, both, 181, resolved=True)
    dead_letter(milvaion, both, 400, resolved=False)

    result = retain(milvaion, around, walker)

    assert ids(milvaion) == {unresolved, young, both}
    assert (result.total, result.details["dead_letters"]) == (1, 1)
    assert milvaion.count('"FailedOccurrences"') == 4


@pytest.mark.parametrize("generation", ["V2", "V3", "V3 bare"], indirect=True)
@BOTH_WALKERS
def test_a_workflow_that_still_runs_keeps_its_finished_steps(
    milvaion: Database, around: Surroundings, occur: Occur, walker: str
) -> None:
    milvaion.run(
        'INSERT INTO "Workflows" ("Id", "Name", "IsActive", "FailureStrategy", "MaxStepRetries",'
        ' "Version", "Definition") VALUES (gen_random_uuid(), %s, true, 0, 0, 1, %s)',
        "flow",
        "{}",
    )
    kept = set()
    for run_status in range(6):
        step = occur(2, 400)
        if run_status in (0, 1):
            kept.add(step)
        milvaion.run(
            'WITH run AS (INSERT INTO "WorkflowRuns" ("Id", "WorkflowId", "WorkflowVersion",'
            ' "CorrelationId", "Status", "CreatedAt") SELECT gen_random_uuid(), "Id", 1,'
            ' gen_random_uuid(), %s, now() FROM "Workflows" RETURNING "Id")'
            ' UPDATE "JobOccurrences" SET "WorkflowRunId" = run."Id" FROM run'
            ' WHERE "JobOccurrences"."Id" = %s::uuid',
            run_status,
            step,
        )

    retain(milvaion, around, walker)

    assert ids(milvaion) == kept


@pytest.mark.parametrize("generation", ["V2", "V3", "V3 bare"], indirect=True)
@BOTH_WALKERS
def test_log_lines_go_with_their_occurrence_and_are_counted(
    milvaion: Database, around: Surroundings, occur: Occur, walker: str
) -> None:
    for ended in (10, 40, 50):
        milvaion.run(
            'INSERT INTO "JobOccurrenceLogs" ("Id", "OccurrenceId", "Timestamp")'
            " SELECT gen_random_uuid(), %s, now() FROM generate_series(1, 4)",
            occur(2, ended),
        )

    result = retain(milvaion, around, walker)

    assert (result.total, result.details["logs"]) == (2, 8)
    assert milvaion.count('"JobOccurrenceLogs"') == 4


@pytest.mark.parametrize("generation", ["V1", "V3"], indirect=True)
def test_shorter_ages_are_obeyed(milvaion: Database, around: Surroundings, occur: Occur) -> None:
    kept = {occur(2, 1), occur(3, 6)}
    occur(2, 3)

    retain(
        milvaion,
        around,
        "index",
        RETENTION__COMPLETED_KEEP_FOR="2d",
        RETENTION__FAILED_KEEP_FOR="7d",
    )

    assert ids(milvaion) == kept


@BOTH_WALKERS
@pytest.mark.parametrize(
    ("settings", "left"),
    [
        ({}, [(179, False), (179, True)]),
        ({"DEAD_LETTERS__RESOLVED_KEEP_FOR": "30d"}, [(179, False)]),
        (
            {"DEAD_LETTERS__UNRESOLVED_KEEP_FOR": "9999d"},
            [(179, False), (179, True), (181, False)],
        ),
    ],
)
def test_dead_letters_go_by_their_failure_and_whether_they_are_resolved(
    milvaion: Database,
    around: Surroundings,
    occur: Occur,
    walker: str,
    settings: dict[str, str],
    left: list[tuple[int, bool]],
) -> None:
    for failed in (179, 181):
        for resolved in (False, True):
            dead_letter(milvaion, occur(3, failed), failed, resolved=resolved)
    milvaion.run("ANALYZE")

    result = run(policy_of(milvaion, "dead_letters.cleanup", **settings), around, walker=walker)

    found = milvaion.rows(
        'SELECT extract(day FROM now() - "FailedAt")::int, "Resolved" FROM "FailedOccurrences"'
        " ORDER BY 1, 2"
    )
    assert found == left
    assert result.total == sum(result.details.values()) == 4 - len(left)
    assert milvaion.count('"JobOccurrences"') == 4


@pytest.mark.parametrize("generation", ["V3"], indirect=True)
def test_without_the_index_of_a_foreign_key_the_run_is_refused_until_it_is_built(
    milvaion: Database, around: Surroundings, occur: Occur
) -> None:
    occur(2, 400)
    milvaion.run('DROP INDEX "IX_FailedOccurrences_OccurrenceId"')

    with pytest.raises(UnindexedForeignKey) as refused:
        retain(milvaion, around, "heap")
    assert ids(milvaion)

    milvaion.run(refused.value.message.strip().splitlines()[-1])
    assert retain(milvaion, around, "heap").total == 1
