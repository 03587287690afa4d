"""A rebuild whose worker was killed: the next run removes what it left, and only that."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg2
import pytest

from embedded.valkey import ValkeyServer
from housekeeping.engine.run import Surroundings
from housekeeping.policies.maintenance import When
from housekeeping.policies.result import StopReason
from tests.conditions import wait_until
from tests.integration.database import Database
from tests.integration.upkeep import (
    INVALID,
    ONE,
    a_snapshot,
    policy_on,
    run,
    wait_until_reindexing_waits,
)

Start = Callable[[], "subprocess.Popen[bytes]"]
OURS = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'hk:%%'"
NOTED = "SELECT count(*) FROM housekeeping.rebuild WHERE artefact IS NOT NULL"
SETTINGS = """
redis_url = "{redis}"
database_url = "{database}"
lease_ttl = "1s"
[maintenance.app]
tables = ["jobs"]
vacuum = "never"
analyze = "never"
min_index_size = "1.1MB"
"""


@pytest.fixture
def start(jobs: Database, valkey: ValkeyServer, tmp_path: Path) -> Iterator[Start]:
    """Starts `housekeeping run database.maintain` in a process of its own."""
    settings = tmp_path / "housekeeping.toml"
    settings.write_text(SETTINGS.format(redis=valkey.url(), database=jobs.url))
    processes: list[subprocess.Popen[bytes]] = []

    def command() -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            [sys.executable, "-c", "from tasks.command_line import main; main()",
             "run", "database.maintain", "--inline", "--json"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        processes.append(process)
        return process

    yield command
    for process in processes:
        process.kill()
        process.communicate()


@contextmanager
def killed_while_it_waits(jobs: Database, start: Start) -> Iterator[None]:
    """Kill it in the middle of its REINDEX; the server then has ended its statement."""
    with a_snapshot(jobs):
        command = start()
        wait_until_reindexing_waits(jobs)
        wait_until(lambda: jobs.one(NOTED), 10)
        command.kill()
        wait_until(lambda: jobs.one(OURS) == 0, 10)
        yield


def test_what_a_killed_run_left_goes_with_the_next(
    jobs: Database, around: Surroundings, start: Start
) -> None:
    with killed_while_it_waits(jobs, start):
        assert jobs.column(INVALID) == ["jobs_token_ccnew"]

    wait_until(lambda: not around.redis.keys("*lease*"), 10)
    result = run(policy_on(jobs, "jobs", **ONE), around)

    assert jobs.column(INVALID) == []
    assert (result.details["leftovers_removed"], result.details["reindexed"]) == (1, 1)
    assert result.success
    assert jobs.one("SELECT count(*) FROM housekeeping.rebuild WHERE ended_at IS NULL") == 0


def test_others_leftovers_of_the_same_index_stay(
    jobs: Database, around: Surroundings, start: Start
) -> None:
    with killed_while_it_waits(jobs, start), jobs.session() as user, user.cursor() as cursor:
        user.autocommit = True
        cursor.execute("SET statement_timeout = '500ms'")
        with pytest.raises(psycopg2.errors.QueryCanceled):
            cursor.execute("REINDEX INDEX CONCURRENTLY jobs_token")
    assert jobs.column(INVALID) == ["jobs_token_ccnew", "jobs_token_ccnew1"]

    wait_until(lambda: not around.redis.keys("*lease*"), 10)
    result = run(policy_on(jobs, "jobs"), around)

    assert jobs.column(INVALID) == ["jobs_token_ccnew1"]
    (told,) = [warning for warning in result.warnings if "It is not ours" in warning]
    assert "jobs_token_ccnew1" in told


def test_a_leftover_in_use_is_left_until_it_is_free(
    jobs: Database, around: Surroundings, start: Start
) -> None:
    with killed_while_it_waits(jobs, start):
        pass
    wait_until(lambda: not around.redis.keys("*lease*"), 10)
    with jobs.session() as user, user.cursor() as cursor:
        cursor.execute("LOCK TABLE jobs IN SHARE UPDATE EXCLUSIVE MODE")  # as a build has it
        busy = run(policy_on(jobs, "jobs"), around)
        assert jobs.column(INVALID) == ["jobs_token_ccnew"]
    free = run(policy_on(jobs, "jobs"), around)

    assert "is in use; it stays for now" in str(busy.warnings)
    assert free.details["leftovers_removed"] == 1
    assert jobs.column(INVALID) == []


def test_a_leftover_that_only_seems_ours_has_to_be_seen_twice(
    jobs: Database, around: Surroundings, start: Start
) -> None:
    """The worker died before it could record which index it was building."""
    with killed_while_it_waits(jobs, start):
        jobs.run("UPDATE housekeeping.rebuild SET artefact = NULL")
    wait_until(lambda: not around.redis.keys("*lease*"), 10)

    first = run(policy_on(jobs, "jobs"), around)
    second = run(policy_on(jobs, "jobs"), around)
    assert jobs.column(INVALID) == ["jobs_token_ccnew"]
    jobs.run("UPDATE housekeeping.rebuild SET seen_at = seen_at - interval '11 minutes'")
    third = run(policy_on(jobs, "jobs"), around)

    assert "seen for the first time" in str(first.warnings)
    assert "DROP INDEX" not in str(second.warnings)
    assert third.details["leftovers_removed"] == 1
    assert jobs.column(INVALID) == []


def test_an_old_index_that_was_swapped_and_not_dropped_goes_too(
    jobs: Database, around: Surroundings
) -> None:
    run(policy_on(jobs, "jobs"), around)  # makes the ledger
    oid = jobs.one("SELECT 'jobs_token'::regclass::oid")
    jobs.run(
        "INSERT INTO housekeeping.rebuild (run_id, table_oid, index_oid, index_name, known)"
        " VALUES (gen_random_uuid(), 'jobs'::regclass, %s, 'public.jobs_token', '{}')",
        oid,
    )
    jobs.run("ALTER INDEX jobs_token RENAME TO jobs_token_ccold")  # as the swap leaves it
    jobs.run("CREATE INDEX jobs_token ON jobs (token)")
    jobs.run("UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s", oid)

    result = run(policy_on(jobs, "jobs"), around)

    assert result.details["leftovers_removed"] == 1
    assert jobs.column(INVALID) == []
    assert jobs.one("SELECT 'jobs_token'::regclass::oid") != oid


def test_a_terminated_run_leaves_nothing_and_says_so(
    jobs: Database, around: Surroundings, start: Start
) -> None:
    with a_snapshot(jobs):
        command = start()
        wait_until_reindexing_waits(jobs)
        command.terminate()
        output, _ = command.communicate(timeout=30)

    assert jobs.column(INVALID) == []
    assert command.returncode == 2
    assert f'"stop_reason": "{StopReason.STOPPED}"' in output.decode()
    assert jobs.one(OURS) == 0


def test_a_rebuild_that_ended_before_anything_was_built_leaves_no_trace(
    jobs: Database, around: Surroundings
) -> None:
    run(policy_on(jobs, "jobs"), around)
    jobs.run(
        "INSERT INTO housekeeping.rebuild (run_id, table_oid, index_oid, index_name, known)"
        " VALUES (gen_random_uuid(), 1, 1, 'gone.index', '{}')"
    )

    result = run(policy_on(jobs, "jobs", reindex=When.NEVER), around)

    assert result.success
    assert jobs.one("SELECT outcome FROM housekeeping.rebuild") == "its process ended before it did"
