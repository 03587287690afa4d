"""After a purge its tables are vacuumed; what hinders that is a warning, never a failure."""

from dataclasses import replace

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.policies.result import StopReason
from tests.integration.database import Database
from tests.integration.runs import BRISK, policy_on, run

STATISTICS = (
    "SELECT relname FROM pg_stat_user_tables WHERE vacuum_count > 0 AND relname <> 'run_window'"
)


@pytest.fixture
def events(database: Database) -> Database:
    database.run(
        "CREATE TABLE events (id bigint PRIMARY KEY, created_at timestamptz);"
        "CREATE TABLE logs (event bigint REFERENCES events ON DELETE CASCADE);"
        "CREATE INDEX ON logs (event); CREATE INDEX ON events (created_at);"
        "INSERT INTO events SELECT i, now() - interval '60 days' FROM generate_series(1, 2000) i;"
        "INSERT INTO logs SELECT i FROM generate_series(1, 2000) i, generate_series(1, 5)"
    )
    database.run("ANALYZE events")
    return database


def test_tables_that_lost_enough_rows_are_vacuumed_and_analyzed(
    events: Database, around: Surroundings
) -> None:
    result = run(policy_on(events, vacuum_after_rows=5_000), around)

    assert (result.total, result.details["logs"]) == (2_000, 10_000)
    assert events.column(STATISTICS) == ["logs"]  # events lost too few
    assert events.one("SELECT analyze_count FROM pg_stat_user_tables WHERE relname = 'logs'") == 1
    assert (result.success, result.warnings) == (True, ())


def test_nothing_is_vacuumed_unless_it_is_asked_for(events: Database, around: Surroundings) -> None:
    run(policy_on(events), around)

    assert events.column(STATISTICS) == []


def test_a_run_that_deleted_little_vacuums_nothing(events: Database, around: Surroundings) -> None:
    run(policy_on(events, vacuum_after_rows=50_000), around)

    assert events.column(STATISTICS) == []


def test_a_run_cut_short_by_its_budget_still_looks_after_what_it_deleted(
    events: Database, around: Surroundings
) -> None:
    policy = policy_on(events, vacuum_after_rows=1_000, pace=replace(BRISK, row_budget=1_500))

    result = run(policy, around)

    assert result.stop_reason is StopReason.ROW_BUDGET
    assert sorted(events.column(STATISTICS)) == ["events", "logs"]


def test_a_table_that_is_not_ours_is_left_to_autovacuum_with_a_warning(
    events: Database, around: Surroundings
) -> None:
    role = "purger_" + events.one("SELECT current_database()")
    events.run(
        f"CREATE ROLE {role} LOGIN; GRANT SELECT, UPDATE, DELETE ON events, logs TO {role};"
        f"GRANT CREATE ON DATABASE {events.one('SELECT current_database()')} TO {role}"
    )
    theirs = Database(events.url.replace("postgres@", f"{role}@", 1), events.version)

    result = run(policy_on(theirs, vacuum_after_rows=5_000), around)

    assert (result.success, result.total) == (True, 2_000)
    (warning,) = result.warnings
    assert warning.startswith("public.logs is left to autovacuum:")
    assert "Have its owner run: GRANT" in warning
    assert events.column(STATISTICS) == []


def test_a_locked_table_is_left_to_autovacuum_with_a_warning(
    events: Database, around: Surroundings
) -> None:
    with events.session() as user, user.cursor() as cursor:
        cursor.execute("LOCK TABLE logs IN SHARE UPDATE EXCLUSIVE MODE")
        result = run(policy_on(events, vacuum_after_rows=5_000), around)

    assert result.success
    assert "holds a ShareUpdateExclusiveLock" in result.warnings[0]
