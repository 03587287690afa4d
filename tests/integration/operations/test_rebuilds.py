"""REINDEX CONCURRENTLY by need: what is rebuilt, what stands against it, and what it leaves."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg2
import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.policies.events import Event, EventStream, StepProgress
from housekeeping.policies.maintenance import When
from housekeeping.policies.result import StopReason
from tests.conditions import wait_until
from tests.integration.database import Database
from tests.integration.upkeep import (
    EAGER_REINDEX,
    INVALID,
    done,
    entry,
    policy_on,
    run,
    running,
    wait_until_reindexing_waits,
)

BLOATED = """
    CREATE TABLE jobs (id int PRIMARY KEY, token text, state int) WITH (autovacuum_enabled = false);
    CREATE TABLE other (id int);
    INSERT INTO jobs SELECT i, md5(i::text), i % 5 FROM generate_series(1, 20000) i;
    CREATE INDEX jobs_token ON jobs (token);
    DELETE FROM jobs WHERE id % 4 <> 0;
"""
BY_NEED = {"vacuum": When.NEVER, "analyze": When.NEVER, "reindex": When.BY_NEED}
# Only the index on token: the primary key is smaller.
ONE = {**BY_NEED, "reindex_limits": replace(EAGER_REINDEX, min_size=1_200_000)}
SIZE = "SELECT pg_relation_size('jobs_token')"


@pytest.fixture
def jobs(database: Database) -> Database:
    database.run(BLOATED)
    database.run("VACUUM (INDEX_CLEANUP ON, ANALYZE) jobs")
    if database.version < 18:
        database.run("CREATE EXTENSION pgstattuple")
    return database


@contextmanager
def a_snapshot(database: Database) -> Iterator[Any]:
    """A user's open snapshot, which has not touched our table: REINDEX CONCURRENTLY waits for it."""
    with database.session() as user, user.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SET LOCAL application_name = 'a long report'")
        cursor.execute("SELECT 1")
        yield user


def test_bloated_indexes_are_rebuilt_the_worst_first(jobs: Database, around: Surroundings) -> None:
    before = jobs.one(SIZE)

    result = run(policy_on(jobs, "jobs", **BY_NEED), around)

    actions = entry(result, "public.jobs")["actions"]
    assert [each["reason"].partition(":")[0] for each in actions] == ["jobs_token", "jobs_pkey"]
    assert "bloat 7" in actions[0]["reason"]
    assert ">= 30%" in actions[0]["reason"]
    assert done(result, "public.jobs") == [("reindex", "done")] * 2
    assert actions[0]["size_before"] == before
    assert actions[0]["size_after"] == jobs.one(SIZE) < before / 2
    assert actions[0]["bloat_before"] > 0.6
    assert actions[0]["bloat_after"] < 0.1
    assert (
        entry(result, "public.jobs")["bloat_after"] < entry(result, "public.jobs")["bloat_before"]
    )
    assert (result.details["reindexed"], result.success) == (2, True)
    assert jobs.column(INVALID) == []


def test_an_index_that_measures_better_than_it_is_estimated_is_left(
    jobs: Database, around: Surroundings
) -> None:
    jobs.run("REINDEX TABLE jobs")
    jobs.run("UPDATE pg_class SET reltuples = 100 WHERE relname = 'jobs_token'")

    result = run(policy_on(jobs, "jobs", **ONE | {"reindex_limits": EAGER_REINDEX}), around)

    if jobs.version < 18:  # pgstattuple is there
        assert done(result, "public.jobs") == [("reindex", "not needed")]
        assert "measured: " in entry(result, "public.jobs")["actions"][0]["told"]
    else:
        assert done(result, "public.jobs") == [("reindex", "done")]
    assert result.success


def test_at_most_so_many_in_a_run_and_none_again_before_its_cooldown(
    jobs: Database, around: Surroundings
) -> None:
    policy = policy_on(jobs, "jobs", **BY_NEED)
    one = replace(policy, reindex_limits=replace(EAGER_REINDEX, max_indexes=1))

    first = run(one, around)
    jobs.run(
        "UPDATE pg_class SET reltuples = 10 WHERE relname = 'jobs_token'"
    )  # seems bloated again
    second = run(one, around)

    assert [each["outcome"] for each in entry(first, "public.jobs")["actions"]] == [
        "done",
        "skipped",
    ]
    assert (first.stop_reason, first.success) == (StopReason.ROW_BUDGET, False)
    (again,) = entry(second, "public.jobs")["actions"]
    assert again["reason"].startswith("jobs_pkey")
    assert second.success


def test_always_rebuilds_all_that_can_be_and_leaves_exclusion_constraints(
    jobs: Database, around: Surroundings
) -> None:
    jobs.run(
        "CREATE TABLE stays (id int PRIMARY KEY, during tsrange, EXCLUDE USING gist (during WITH &&))"
    )

    result = run(policy_on(jobs, "stays", **BY_NEED | {"reindex": When.ALWAYS}), around)

    (action,) = entry(result, "public.stays")["actions"]
    assert action["reason"] == "stays_pkey: always"
    assert result.success


def test_an_old_transaction_is_named_and_nothing_begun(
    jobs: Database, around: Surroundings
) -> None:
    with a_snapshot(jobs):
        result = run(policy_on(jobs, "jobs", **ONE, old_transaction=timedelta(0)), around)

    assert done(result, "public.jobs") == [("reindex", "skipped")]
    assert "a long report" in entry(result, "public.jobs")["actions"][0]["told"]
    assert (result.stop_reason, result.success) == (StopReason.THROTTLED, False)
    assert jobs.count("housekeeping.rebuild") == 0


def test_a_disk_without_room_is_no_place_for_a_rebuild(
    jobs: Database, around: Surroundings
) -> None:
    vast = replace(ONE["reindex_limits"], headroom=1e12)

    result = run(policy_on(jobs, "jobs", **ONE | {"reindex_limits": vast}), around)

    assert done(result, "public.jobs") == [("reindex", "skipped")]
    assert "of the disk are free" in entry(result, "public.jobs")["actions"][0]["told"]


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
        jobs.run("ALTER TABLE jobs ADD COLUMN more int")
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
        jobs.run("ALTER TABLE jobs ADD COLUMN more int")
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


def test_an_index_whose_rebuilds_keep_failing_is_left_to_an_operator(
    jobs: Database, around: Surroundings
) -> None:
    policy = policy_on(jobs, "jobs", **ONE)
    run(replace(policy, reindex=When.NEVER), around)  # makes the ledger
    jobs.run(
        "INSERT INTO housekeeping.rebuild (run_id, table_oid, index_oid, index_name, known, ended_at,"
        " done) SELECT gen_random_uuid(), 1, 1, 'public.jobs_token', '{}', now(), false"
        " FROM generate_series(1, 3)"
    )

    result = run(policy, around)

    assert result.details["reindexed"] == 0
    (told,) = [warning for warning in result.warnings if "its last 3 rebuilds failed" in warning]
    assert 'REINDEX INDEX CONCURRENTLY "public"."jobs_token"' in told


def test_progress_is_told_while_it_goes(jobs: Database, around: Surroundings) -> None:
    heard: list[Event] = []
    listening = Surroundings(around.redis, events=EventStream([heard.append]))
    with a_snapshot(jobs) as report, running(policy_on(jobs, "jobs", **ONE), listening) as ours:
        wait_until_reindexing_waits(jobs)
        wait_until(lambda: any(isinstance(event, StepProgress) for event in heard), 10)
        report.rollback()
        ours.result(30)

    told = next(event for event in heard if isinstance(event, StepProgress))
    assert told.step == "reindex public.jobs_token"
    assert told.phase.startswith("waiting for")
    assert 0 <= told.percent < 100


def test_what_a_dry_run_says_of_indexes_is_what_a_run_does(
    jobs: Database, around: Surroundings
) -> None:
    dry = run(policy_on(jobs, "jobs", **BY_NEED), around, dry_run=True)
    real = run(policy_on(jobs, "jobs", **BY_NEED), around)

    assert [(a["work"], a["reason"]) for a in entry(dry, "public.jobs")["actions"]] == [
        (a["work"], a["reason"]) for a in entry(real, "public.jobs")["actions"]
    ]
