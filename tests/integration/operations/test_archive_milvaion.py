"""Archiving on Milvaion's own schemas, all generations: upstream's own job can't run on any."""

from typing import Any

import pytest

from housekeeping.engine.run import Surroundings
from tests.integration.conftest import DatabaseFactory
from tests.integration.database import Database
from tests.integration.operations.test_milvaion import (
    JOB,
    Occur,
    dead_letter,
    generation,
    ids,
    milvaion,
    occur,
    policy_of,
)
from tests.integration.runs import run

__all__ = ["generation", "milvaion", "occur"]  # fixtures
MONTHS = (
    "SELECT to_char(\"EndTime\" AT TIME ZONE 'UTC', 'YYYY_MM') FROM \"JobOccurrences\""
    ' WHERE "Id" = %s'
)


def logs_of(database: Database, occurrence: str, lines: int) -> None:
    database.run(
        'INSERT INTO "JobOccurrenceLogs" ("Id", "OccurrenceId", "Timestamp", "Level", "Message",'
        " \"Data\") SELECT gen_random_uuid(), %s, now(), 'Error', 'm' || i, '{\"a\": 1}'"
        " FROM generate_series(1, %s) i",
        occurrence,
        lines,
    )


def has_logs(database: Database) -> bool:
    return database.one("SELECT to_regclass('\"JobOccurrenceLogs\"') IS NOT NULL") is True


def images(database: Database, table: str, source: str) -> dict[str, str]:
    """Every row of a table by its id, in the columns of the source."""
    columns = database.one(
        "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute"
        " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
        f'"{source}"',
    )
    return dict(database.rows(f'SELECT "Id"::text, ROW({columns})::text FROM "{table}"'))


def test_finished_occurrences_arrive_whole_in_the_table_of_their_month(
    milvaion: Database, around: Surroundings, occur: Occur
) -> None:
    old = {status: occur(status, 100 + 31 * status) for status in (2, 3, 4, 5)}
    stays = {occur(status, 500) for status in (0, 1, 6, 7)} | {occur(2, 89)}
    with_logs = has_logs(milvaion)
    if with_logs:
        for occurrence in (old[2], old[3]):
            logs_of(milvaion, occurrence, 3)
    dead_letter(milvaion, old[3], 20, resolved=True)
    before = images(milvaion, "JobOccurrences", "JobOccurrences")
    letters = images(milvaion, "FailedOccurrences", "FailedOccurrences")
    months = {key: milvaion.one(MONTHS, key) for key in old.values()}

    result = run(policy_of(milvaion, "occurrences.archive"), around)

    assert result.success, result
    assert result.total == 4
    assert result.as_dict()["total_archived"] == 4
    assert {key: count for key, count in result.details.items() if count} == {
        "completed": 1,
        "failed": 1,
        "cancelled": 1,
        "timed_out": 1,
        "dead_letters": 1,
        **({"logs": 6} if with_logs else {}),
    }
    assert ids(milvaion) == stays
    for occurrence, month in months.items():
        moved = images(milvaion, f"JobOccurrences_Archive_{month}", "JobOccurrences")
        assert moved[occurrence] == before[occurrence]
    month = months[old[3]]
    moved = images(milvaion, f"JobOccurrences_Archive_{month}_DeadLetters", "FailedOccurrences")
    assert moved == letters
    if with_logs:
        assert milvaion.count(f'"JobOccurrences_Archive_{month}_Logs"') == 3
    built = milvaion.column(
        "SELECT indexname FROM pg_indexes WHERE indexname LIKE 'IX_Job%Archive%'"
    )
    assert f"IX_JobOccurrences_Archive_{month}_CorrelationId" in built


def test_an_unresolved_dead_letter_keeps_its_occurrence_out_of_the_archive(
    milvaion: Database, around: Surroundings, occur: Occur
) -> None:
    kept = occur(3, 400)
    dead_letter(milvaion, kept, 400, resolved=False)
    occur(3, 400)
    assert run(policy_of(milvaion, "occurrences.archive"), around).total == 1
    assert ids(milvaion) == {kept}


def test_an_occurrence_that_never_ended_goes_by_its_creation(
    milvaion: Database, around: Surroundings, occur: Occur
) -> None:
    occur(3, None, 91)
    kept = occur(3, None, 89)
    assert run(policy_of(milvaion, "occurrences.archive"), around).total == 1
    assert ids(milvaion) == {kept}


@pytest.mark.parametrize("generation", ["V1", "V3"], indirect=True)
def test_upstreams_own_empty_table_is_not_written_to(
    milvaion: Database, around: Surroundings, occur: Occur
) -> None:
    from housekeeping.policies.errors import PolicyRefused

    occurrence = occur(2, 100)
    month = milvaion.one(MONTHS, occurrence)
    milvaion.run(f'CREATE TABLE "JobOccurrences_Archive_{month}" ("Id" uuid, "ScheduledTime" date)')
    with pytest.raises(PolicyRefused, match="was not made by housekeeping"):
        run(policy_of(milvaion, "occurrences.archive"), around)
    assert ids(milvaion) == {occurrence}


def test_a_column_that_came_with_a_newer_milvaion_is_archived_from_then_on(
    new_database: DatabaseFactory, milvaion_schemas: dict[str, str], around: Surroundings
) -> None:
    database = new_database(milvaion_schemas["V2"])
    database.run(
        'INSERT INTO "ScheduledJobs" ("Id", "ExecuteAt", "IsActive", "ConcurrentExecutionPolicy",'
        ' "JobNameInWorker", "Version") VALUES (%s, now(), true, 0, %s, 1)',
        JOB,
        "job",
    )
    insert: Any = (
        'INSERT INTO "JobOccurrences" ("Id", "JobId", "JobVersion", "CorrelationId", "Status",'
        ' "EndTime", "CreatedAt", "DispatchRetryCount") VALUES (gen_random_uuid(), %s, 1,'
        " gen_random_uuid(), 2, '2024-01-15', '2024-01-15', 0)"
    )
    database.run(insert, JOB)
    assert run(policy_of(database, "occurrences.archive"), around).total == 1
    database.run('ALTER TABLE "JobOccurrences" ADD "JobDisplayName" text')
    database.run(insert, JOB)
    database.run('UPDATE "JobOccurrences" SET "JobDisplayName" = \'Nightly\'')
    assert run(policy_of(database, "occurrences.archive"), around).total == 1
    names = database.column('SELECT "JobDisplayName" FROM "JobOccurrences_Archive_2024_01"')
    assert sorted(names, key=str) == ["Nightly", None]
