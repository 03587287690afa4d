"""Detaching beside users at work: nobody waits for long, and what is cut short is taken up again."""

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import psycopg2
import pytest

from embedded.valkey import ValkeyServer
from housekeeping.engine.run import Surroundings
from housekeeping.policies.result import RunResult
from tests.conditions import wait_until
from tests.integration.database import Database
from tests.integration.one_run import LEASE
from tests.integration.partitions import (
    EXPIRED,
    WHOLE,
    attached,
    fill,
    partitioned,
    states,
    there,
)
from tests.integration.runs import BRISK, ledger_rows, listening, policy_on, run, running

STAYING = [f"events_{k}" for k in range(4)]
ALL = [f"events_{k}" for k in range(10)]
OLDEST = "events_9"
DETACHING = "application_name = 'hk:detach' AND query LIKE '%%CONCURRENTLY%%'"
USING_THE_TABLE = "SELECT FROM events WHERE created_at > now() - interval '2 days'"
LONGEST_WAIT_S = 1.0  # a lock_timeout of 0.2 s, the watcher's look every 0.25 s, and a slow machine


@contextmanager
def using(
    database: Database, statement: str = USING_THE_TABLE
) -> Iterator[psycopg2.extensions.connection]:
    """Have a user in a transaction that has used the table."""
    with database.session() as user, user.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        cursor.execute(statement)
        yield user
        user.rollback()


def wait_until_detaching(database: Database) -> int:
    """Return the pid of our session that waits inside DETACH CONCURRENTLY."""
    waiting = f"SELECT pid FROM pg_stat_activity WHERE {DETACHING} AND wait_event_type = 'Lock'"
    found = wait_until(lambda: database.column(waiting), 10)
    return int(found[0])


def assert_everything_went_once(database: Database, *results: RunResult) -> None:
    assert attached(database) == STAYING
    assert database.column("SELECT id::int FROM events ORDER BY 1") == list(range(30))
    assert set(states(database).values()) == {"detached"}
    assert ledger_rows(database) == sum(result.total for result in results) == EXPIRED
    detached = sum(result.details["partitions_detached"] for result in results)
    assert detached == len(WHOLE)
    assert there(database) == ALL


def test_a_reader_of_another_partition_is_not_queued_behind_and_it_is_tried_later(
    database: Database, around: Surroundings
) -> None:
    """With a DEFAULT partition an exclusive lock on the whole table is needed."""
    partitioned(database)
    database.run("CREATE TABLE rest PARTITION OF events DEFAULT")
    fill(database)
    waits: list[float] = []

    def read() -> None:
        begun = time.perf_counter()
        database.rows(USING_THE_TABLE)
        waits.append(time.perf_counter() - begun)

    with using(database), running(policy_on(database), around) as ours:
        while not ours.done():
            read()
        first = ours.result()

    assert attached(database) == [*ALL, "rest"]
    assert max(waits) < LONGEST_WAIT_S
    assert (first.success, first.exit_code) == (False, 2)
    assert first.left_behind == 60
    assert any(OLDEST in told and "lock timeout" in told for told in first.warnings)
    assert {each["done"] for each in first.tables} == {"left", "deleted"}
    assert first.total == EXPIRED - 60  # the boundary partition's rows went all the same

    second = run(policy_on(database), around)

    database.run("DROP TABLE rest")
    assert second.success
    assert_everything_went_once(database, first, second)


def test_a_reader_is_not_in_the_way_of_detaching_concurrently_once_he_is_done(
    database: Database, around: Surroundings
) -> None:
    partitioned(database)
    fill(database)

    with using(database) as user, running(policy_on(database), around) as ours:
        wait_until_detaching(database)
        database.rows(USING_THE_TABLE)  # nobody queues behind us
        user.rollback()
        result = ours.result(30)

    assert result.success
    assert_everything_went_once(database, result)


def cut_short(database: Database, around: Surroundings) -> RunResult:
    """Cancel a run's DETACH CONCURRENTLY while it waits for a user."""
    with using(database), running(policy_on(database), around) as ours:
        pid = wait_until_detaching(database)
        assert database.one("SELECT pg_cancel_backend(%s)", pid)
        result = ours.result(30)
    pending = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhdetachpending"
    assert database.column(pending) == [OLDEST]
    return result


def test_a_detaching_that_was_cut_short_is_finalized_by_the_next_run(
    database: Database, around: Surroundings
) -> None:
    partitioned(database)
    fill(database)

    first = cut_short(database, around)

    assert not first.success
    assert any(OLDEST in told and "finalizes" in told for told in first.warnings)
    assert any("in a transaction since" in told for told in first.warnings)
    assert first.details["partitions_detached"] == 0
    second = run(policy_on(database), around)
    assert second.success
    assert_everything_went_once(database, first, second)


def test_while_an_old_snapshot_lives_finalizing_is_given_up_and_tried_again(
    database: Database, around: Surroundings
) -> None:
    partitioned(database)
    fill(database)
    first = cut_short(database, around)

    with using(database, "SELECT 1") as user, running(policy_on(database), around) as ours:
        finalizing = (
            "SELECT pid FROM pg_stat_activity WHERE query LIKE '%%FINALIZE%%'"
            " AND application_name LIKE 'hk:%%' AND wait_event_type = 'Lock'"
        )
        pid = wait_until(lambda: database.column(finalizing), 10)[0]
        database.rows("SELECT FROM events")
        database.one("SELECT pg_cancel_backend(%s)", pid)
        # The others go plainly: the server has only one pending at a time.
        second = ours.result(30)
        user.rollback()

    assert not second.success
    third = run(policy_on(database), around)
    assert third.success
    assert_everything_went_once(database, first, second, third)


def test_somebody_who_reads_the_partition_itself_waits_for_us_no_longer_than_a_lock_timeout(
    database: Database, around: Surroundings
) -> None:
    partitioned(database)
    fill(database)

    with (
        using(database, f"SELECT FROM {OLDEST}"),
        running(policy_on(database), around) as ours,
        ThreadPoolExecutor(1) as threads,
    ):
        wait_until_detaching(database)
        begun = time.perf_counter()
        threads.submit(database.rows, f"SELECT FROM {OLDEST}").result(30)
        waited = time.perf_counter() - begun
        first = ours.result(30)

    assert waited < 2 * LONGEST_WAIT_S
    second = run(policy_on(database), around)
    assert second.success
    assert_everything_went_once(database, first, second)


def test_what_somebody_else_left_pending_is_told_and_left_alone(
    database: Database, around: Surroundings
) -> None:
    partitioned(database)
    fill(database)
    with using(database), database.session() as user, user.cursor() as cursor:
        user.autocommit = True
        cursor.execute("SET lock_timeout = '100ms'")
        with pytest.raises(psycopg2.errors.LockNotAvailable):
            cursor.execute("ALTER TABLE events DETACH PARTITION events_2 CONCURRENTLY")

    result = run(policy_on(database), around)

    assert attached(database) == ["events_0", "events_1", "events_3"]
    assert database.count("events_2") == 10
    (told,) = [warning for warning in result.warnings if "cut short" in warning]
    assert "events_2" not in states(database)
    database.run(told.partition("sight. ")[2])
    assert database.one("SELECT NOT relispartition FROM pg_class WHERE relname = 'events_2'")


@contextmanager
def run_apart(
    database: Database, valkey: ValkeyServer, lock_timeout: float = 0.2
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a purge in a process of its own."""
    command = [sys.executable, "-m", "tests.integration.one_run"]
    process = subprocess.Popen([*command, database.url, valkey.url(), str(lock_timeout)])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def run_once_the_lease_is_free(database: Database, around: Surroundings) -> RunResult:
    wait_until(lambda: not around.redis.keys("*lease*"), 5 * LEASE.total_seconds())
    return run(policy_on(database), around)


def test_a_process_killed_between_the_detaching_and_its_record_is_counted_once(
    database: Database, around: Surroundings, valkey: ValkeyServer
) -> None:
    partitioned(database)
    fill(database)

    with run_apart(database, valkey, lock_timeout=30) as process:
        with using(database) as user, database.session() as keeper, keeper.cursor() as cursor:
            wait_until_detaching(database)
            # What it writes next, once the user is done, is the record: it shall not come to that.
            cursor.execute("LOCK TABLE housekeeping.detached_partition")
            user.rollback()
            wait_until(lambda: OLDEST not in attached(database), 10)
            wait_until(
                lambda: not database.column(f"SELECT 1 FROM pg_stat_activity WHERE {DETACHING}"), 10
            )
            process.kill()
            process.wait()
        assert states(database) == {OLDEST: "detaching"}

    result = run_once_the_lease_is_free(database, around)

    assert result.success
    assert_everything_went_once(database, result)


def test_a_process_killed_while_it_detaches_leaves_nothing_running_and_the_next_run_goes_on(
    database: Database, around: Surroundings, valkey: ValkeyServer
) -> None:
    partitioned(database)
    fill(database)

    with using(database) as user:
        with run_apart(database, valkey):
            wait_until_detaching(database)
        gone = f"SELECT 1 FROM pg_stat_activity WHERE {DETACHING}"
        wait_until(lambda: not database.column(gone), 5)
        user.rollback()

    result = run_once_the_lease_is_free(database, around)

    assert result.success
    assert_everything_went_once(database, result)


def test_an_intent_nothing_came_of_is_withdrawn(database: Database, around: Surroundings) -> None:
    """Else a partition its owner detaches by hand, to keep it, would be taken for ours."""
    partitioned(database)
    fill(database)
    with database.session() as user, user.cursor() as cursor:
        cursor.execute("LOCK TABLE events IN SHARE UPDATE EXCLUSIVE MODE")
        with running(policy_on(database), around) as ours:
            pid = wait_until_detaching(database)
            database.one("SELECT pg_cancel_backend(%s)", pid)
            ours.result(30)
    assert states(database) == {OLDEST: "withdrawn"}
    database.run(f"ALTER TABLE events DETACH PARTITION {OLDEST}")

    run(policy_on(database), around)
    database.run(
        "UPDATE housekeeping.detached_partition SET drop_after = now(), detached_at = 'epoch'"
    )
    run(policy_on(database), around)

    assert there(database) == [*STAYING, OLDEST]
    assert database.count(OLDEST) == 10


def test_an_operator_who_stops_the_run_stops_the_waiting_too(
    database: Database, around: Surroundings
) -> None:
    partitioned(database)
    fill(database)

    with using(database), running(policy_on(database), around) as ours:
        wait_until_detaching(database)
        begun = time.perf_counter()
        around.control.pause("tasks.tables.purge")
        result = ours.result(30)

    assert time.perf_counter() - begun < 5
    assert (result.stop_reason.value, result.success) == ("paused", False)


def test_a_time_budget_ends_between_two_partitions(
    database: Database, around: Surroundings
) -> None:
    partitioned(database)
    fill(database)
    policy = policy_on(database, pace=replace(BRISK, time_budget=BRISK.batch_target * 0))

    result = run(policy, around)

    assert (result.stop_reason.value, result.success) == ("time_budget", False)
    assert attached(database) == ALL


def test_progress_is_told_once_and_counts_up(database: Database, around: Surroundings) -> None:
    partitioned(database)
    fill(database)
    heard: list[str] = []

    run(policy_on(database), listening(around, lambda event: heard.append(event.NAME)))

    assert heard.count("housekeeping.run.started") == 1
    assert heard.count("housekeeping.window.committed") == len(WHOLE) + 1
