"""A rebuild that is cut short leaves nothing of ours, and touches nothing of others."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import psycopg2
import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.policies.result import StopReason
from tests.conditions import wait_until
from tests.integration.database import Database
from tests.integration.upkeep import (
    INVALID,
    ONE,
    a_snapshot,
    done,
    entry,
    policy_on,
    run,
    running,
    wait_until_reindexing_waits,
)


def test_a_stopped_rebuild_leaves_nothing_of_ours(jobs: Database, around: Surroundings) -> None:
    with a_snapshot(jobs), running(policy_on(jobs, "jobs", **ONE), around) as ours:
        wait_until_reindexing_waits(jobs)
        assert jobs.column(INVALID) == ["jobs_token_ccnew"]
        around.control.pause()
        result = ours.result(30)

    assert jobs.column(INVALID) == []
    assert (result.stop_reason, result.success) == (StopReason.PAUSED, False)
    assert jobs.one("SELECT ended_at IS NOT NULL AND NOT done FROM housekeeping.rebuild")


def test_a_rebuild_that_waits_too_long_for_somebody_gives_up_and_leaves_nothing(
    jobs: Database, around: Surroundings
) -> None:
    policy = policy_on(jobs, "jobs", **ONE, old_transaction=timedelta(seconds=2))
    with a_snapshot(jobs):
        result = run(policy, around)

    assert done(result, "public.jobs") == [("reindex", "yielded")]
    told = entry(result, "public.jobs")["actions"][0]["told"]
    assert "waited too long for session" in told
    assert "a long report" in told
    assert jobs.column(INVALID) == []
    assert result.stop_reason is StopReason.THROTTLED


def test_a_rebuild_gives_way_to_a_user_and_leaves_nothing(
    jobs: Database, around: Surroundings
) -> None:
    with a_snapshot(jobs), running(policy_on(jobs, "jobs", **ONE), around) as ours:
        wait_until_reindexing_waits(jobs)
        begun = jobs.one("SELECT clock_timestamp()")
        jobs.run("SET lock_timeout = '20s'; ALTER TABLE jobs ADD COLUMN more int")
        waited = jobs.one("SELECT clock_timestamp()") - begun
        result = ours.result(30)

    assert waited < timedelta(seconds=5)  # its patience is 1 s
    assert done(result, "public.jobs") == [("reindex", "yielded")]
    assert "waited for us" in entry(result, "public.jobs")["actions"][0]["told"]
    assert jobs.column(INVALID) == []


def test_it_gives_way_to_sessions_of_other_roles_as_well(
    jobs: Database, around: Surroundings
) -> None:
    """An ordinary role does not see in pg_stat_activity what others wait for."""
    guest = "owner_" + jobs.one("SELECT current_database()")
    jobs.run(f"CREATE ROLE {guest} LOGIN; ALTER TABLE jobs OWNER TO {guest}")
    jobs.run(f"GRANT CREATE ON DATABASE {jobs.one('SELECT current_database()')} TO {guest}")
    theirs = Database(jobs.url.replace("postgres@", f"{guest}@", 1), jobs.version)
    seen = replace(ONE["reindex_limits"], disk_size=10**12)  # it may not ask where the data lies
    policy = policy_on(theirs, "jobs", **ONE | {"reindex_limits": seen})
    with a_snapshot(jobs), running(policy, around) as ours:
        wait_until_reindexing_waits(jobs)
        jobs.run("SET lock_timeout = '20s'; ALTER TABLE jobs ADD COLUMN more int")
        result = ours.result(30)

    assert done(result, "public.jobs") == [("reindex", "yielded")]
    assert jobs.column(INVALID) == []


def test_a_leftover_with_the_longest_of_names_is_known_again(
    jobs: Database, around: Surroundings
) -> None:
    long = "jobs_" + "ü" * 28 + "xx"
    jobs.run(f'ALTER INDEX jobs_token RENAME TO "{long}"')
    with a_snapshot(jobs), running(policy_on(jobs, "jobs", **ONE), around) as ours:
        wait_until_reindexing_waits(jobs)
        around.control.pause()
        ours.result(30)

    assert jobs.column(INVALID) == []


def test_others_invalid_indexes_are_told_and_never_touched(
    jobs: Database, around: Surroundings
) -> None:
    with pytest.raises(psycopg2.errors.UniqueViolation):
        jobs.run("CREATE UNIQUE INDEX CONCURRENTLY jobs_wrong ON jobs (state)")
    with pytest.raises(psycopg2.errors.UniqueViolation):  # named as a leftover of a rebuild is
        jobs.run("CREATE UNIQUE INDEX CONCURRENTLY jobs_token_ccnew ON jobs (state)")
    with a_snapshot(jobs), jobs.session() as user, user.cursor() as cursor:
        user.autocommit = True
        cursor.execute("SET statement_timeout = '500ms'")
        with pytest.raises(psycopg2.errors.QueryCanceled):
            cursor.execute("REINDEX INDEX CONCURRENTLY jobs_token")
    others = ["jobs_token_ccnew", "jobs_token_ccnew1", "jobs_wrong"]
    assert jobs.column(INVALID) == others

    result = run(policy_on(jobs, "jobs", **ONE), around)

    assert done(result, "public.jobs") == [("reindex", "done")]
    assert jobs.column(INVALID) == others
    told = [warning for warning in result.warnings if "It is not ours, so it stays" in warning]
    assert len(told) == 3
    assert 'DROP INDEX CONCURRENTLY "public"."jobs_wrong"' in told[0]


@pytest.mark.parametrize("table", ["jobs", "other"])
def test_an_index_somebody_is_building_is_finished(
    jobs: Database, around: Surroundings, table: str
) -> None:
    building = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND query LIKE 'CREATE INDEX CONCURRENTLY%%'"
    )
    with a_snapshot(jobs) as report, jobs.session() as user:
        user.autocommit = True

        def build() -> None:
            with user.cursor() as cursor:
                cursor.execute(f"CREATE INDEX CONCURRENTLY theirs ON {table} (id)")

        with ThreadPoolExecutor(1) as threads:
            built = threads.submit(build)
            wait_until(lambda: jobs.one(building), 10)
            result = run(policy_on(jobs, "jobs", "other", **ONE), around)
            report.rollback()
            built.result(10)

    assert done(result, "public.jobs") == [("reindex", "skipped")]
    assert "builds an index" in str(result.tables)
    assert jobs.column("SELECT indisvalid FROM pg_index WHERE indexrelid = 'theirs'::regclass") == [
        True
    ]


def test_a_build_that_begins_beside_our_rebuild_finishes(
    jobs: Database, around: Surroundings
) -> None:
    policy = policy_on(jobs, "jobs", **ONE, patience=timedelta(seconds=20))
    with (
        a_snapshot(jobs) as report,
        running(policy, around) as ours,
        ThreadPoolExecutor(1) as threads,
    ):
        wait_until_reindexing_waits(jobs)
        built = threads.submit(jobs.run, "CREATE INDEX CONCURRENTLY theirs ON other (id)")
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'virtualxid' AND NOT granted"
        wait_until(lambda: jobs.one(waiting) >= 2, 10)
        report.rollback()
        built.result(20)
        result = ours.result(20)

    assert result.success
    assert jobs.column(INVALID) == []
    assert jobs.one("SELECT indisvalid FROM pg_index WHERE indexrelid = 'theirs'::regclass")
