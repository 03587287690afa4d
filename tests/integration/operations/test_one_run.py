"""One run at a time on a table, whatever Redis says; and no row counted twice."""

from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest
from redis import Redis

from housekeeping.engine.run import Surroundings
from housekeeping.operations.records import past_runs
from housekeeping.policies.result import StopReason
from tests.conditions import wait_until
from tests.integration.database import Database
from tests.integration.runs import (
    SMALL_WINDOWS,
    AfterWindow,
    ledger_rows,
    listening,
    policy_on,
    run,
    running,
)

BOTH_WALKERS = pytest.mark.parametrize("walker", ["heap", "index"])
SHORT_LEASE = replace(SMALL_WINDOWS, lease_ttl=timedelta(milliseconds=600))


@pytest.fixture
def crowded(events: Database) -> Database:
    """`events` with 5,000 expired rows and 29 others: many windows of a hundred rows."""
    events.run(
        "INSERT INTO events SELECT i, now() - least(i, 400) * interval '1 day' - i * interval '1 s'"
        " FROM generate_series(1, 5029) i"
    )
    events.run("VACUUM ANALYZE events")
    return events


def leases(redis: Redis) -> list[bytes]:
    return list(redis.scan_iter("*lease*"))


@BOTH_WALKERS
def test_of_two_runs_at_once_one_works_and_the_other_is_locked_out(
    crowded: Database, around: Surroundings, walker: str
) -> None:
    policy = policy_on(crowded, pace=SMALL_WINDOWS)
    second = AfterWindow(lambda: run(policy, around, walker=walker))

    first = run(policy, listening(around, second), walker=walker)

    assert (first.stop_reason, first.total) == (StopReason.EXHAUSTED, 5_000)
    locked = second.outcome
    assert (locked.stop_reason, locked.total, locked.exit_code) == (StopReason.LOCKED, 0, 3)
    assert not locked.success
    reasons = {past["stop_reason"] for past in past_runs([crowded.url], None, None, 10)}
    assert reasons == {"exhausted", "locked"}
    assert leases(around.redis) == []


def test_two_policies_on_one_table_are_two_runs_on_one_target(
    crowded: Database, around: Surroundings
) -> None:
    policy = policy_on(crowded, pace=SMALL_WINDOWS)
    second = AfterWindow(lambda: run(replace(policy, name="other"), around))

    run(policy, listening(around, second))

    assert second.outcome.stop_reason is StopReason.LOCKED


def test_runs_on_two_tables_do_not_hinder_each_other(
    crowded: Database, around: Surroundings
) -> None:
    crowded.run("CREATE TABLE others AS SELECT * FROM events")
    policy = policy_on(crowded, pace=SMALL_WINDOWS)
    second = AfterWindow(lambda: run(policy_on(crowded, "others"), around))

    assert run(policy, listening(around, second)).total == 5_000
    assert second.outcome.total == 5_000


@BOTH_WALKERS
@pytest.mark.parametrize("window", [1, 2])
def test_when_redis_forgets_the_lease_the_newer_run_goes_on_and_the_older_stops(
    crowded: Database, around: Surroundings, walker: str, window: int
) -> None:
    policy = policy_on(crowded, pace=SMALL_WINDOWS)

    def lose_the_lease_and_run_again() -> object:
        around.redis.flushall()
        return run(policy, around, walker=walker, limit=1_000)

    newer = AfterWindow(lose_the_lease_and_run_again, window)

    older = run(policy, listening(around, newer), walker=walker)

    assert older.stop_reason is StopReason.LOCK_LOST
    assert (older.success, older.exit_code) == (False, 2)
    assert (newer.outcome.stop_reason, newer.outcome.total) == (StopReason.ROW_BUDGET, 1_000)
    assert older.total + newer.outcome.total == ledger_rows(crowded)
    assert crowded.count("events") == 5_029 - ledger_rows(crowded)
    assert older.total < 4_000


@BOTH_WALKERS
def test_the_history_of_two_runs_that_met_sums_up_to_the_rows_gone(
    crowded: Database, around: Surroundings, walker: str
) -> None:
    """The older run still commits windows while the newer one begins, until its fence is taken."""
    policy = policy_on(crowded, pace=SMALL_WINDOWS)

    def lose_the_lease_and_run_again() -> object:
        around.redis.flushall()
        return run(policy, around, walker=walker, limit=10)

    newer = AfterWindow(lose_the_lease_and_run_again)
    older = run(policy, listening(around, newer), walker=walker)

    past = {str(run["id"]): run for run in past_runs([crowded.url], None, None, 10)}
    assert sum(run["total"] for run in past.values()) == 5_029 - crowded.count("events")
    assert past[older.run_id]["stop_reason"] == "lock_lost"


@BOTH_WALKERS
def test_a_batch_under_way_and_the_taking_of_its_fence_exclude_each_other(
    crowded: Database, around: Surroundings, walker: str
) -> None:
    """The older run's batch waits for a user; the newer run waits for that batch to end."""
    patient = replace(SMALL_WINDOWS, lock_timeout=timedelta(seconds=4))
    policy = policy_on(crowded, pace=patient)
    with crowded.session() as user, user.cursor() as cursor:
        cursor.execute("SELECT FROM events WHERE id IN (3000, 5029) FOR UPDATE")
        with running(policy, around, walker=walker) as older:
            crowded.wait_until_we_wait_for_a_lock()
            around.redis.flushall()
            with running(policy, around, walker=walker) as newer:
                wait_until(lambda: leases(around.redis), 5)
                user.rollback()
                results = [older.result(60), newer.result(60)]

    # The older one may have cleared the table before it notices, the newer one never alongside it.
    assert results[0].stop_reason in (StopReason.LOCK_LOST, StopReason.EXHAUSTED)
    assert results[1].stop_reason is StopReason.EXHAUSTED
    assert sum(result.total for result in results) == ledger_rows(crowded) == 5_000
    past = past_runs([crowded.url], None, None, 10)
    assert sum(run["total"] for run in past) == 5_000


def test_a_stolen_lease_ends_the_run_within_a_third_of_its_life(
    crowded: Database, around: Surroundings
) -> None:
    redis = around.redis

    def steal() -> None:
        (key,) = leases(redis)
        redis.set(key, "another-run token", px=60_000)
        wait_until(lambda: not renewed(key), 1)

    def renewed(key: bytes) -> bool:
        return redis.get(key) != b"another-run token"

    policy = policy_on(crowded, pace=replace(SHORT_LEASE, duty=0.01))

    result = run(policy, listening(around, AfterWindow(steal)))

    assert result.stop_reason is StopReason.LOCK_LOST
    assert 0 < result.total < 5_000
    assert result.total == ledger_rows(crowded)
    assert [redis.get(key) for key in leases(redis)] == [b"another-run token"]


def test_a_lease_is_kept_for_longer_than_it_lives(crowded: Database, around: Surroundings) -> None:
    # Five times 10 ms, and what else the windows take, earn 1.6 s of rest on the fastest machine.
    crowded.run(
        "CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF OLD.id % 1000 = 0 THEN PERFORM pg_sleep(0.01); END IF; RETURN NULL; END $$;"
        "CREATE TRIGGER linger AFTER DELETE ON events FOR EACH ROW EXECUTE FUNCTION linger()"
    )
    larger = replace(SHORT_LEASE, first_window_rows=1_000, batch_target=timedelta(milliseconds=50))
    policy = policy_on(crowded, pace=replace(larger, duty=0.03))

    result = run(policy, around)

    assert result.seconds > 2 * SHORT_LEASE.lease_ttl.total_seconds()
    assert (result.stop_reason, result.total) == (StopReason.EXHAUSTED, 5_000)


@pytest.mark.parametrize("task", ["tasks.tables.purge", None])
def test_a_pause_ends_a_run_within_one_window_and_none_starts(
    crowded: Database, around: Surroundings, task: str | None
) -> None:
    policy = policy_on(crowded, pace=SMALL_WINDOWS)

    paused = run(policy, listening(around, AfterWindow(lambda: around.control.pause(task))))

    assert (paused.stop_reason, paused.batches) == (StopReason.PAUSED, 1)
    assert (paused.success, paused.exit_code) == (False, 2)
    assert run(policy, around).stop_reason is StopReason.PAUSED
    around.control.resume(task)
    assert run(policy, around).stop_reason is StopReason.EXHAUSTED
    assert ledger_rows(crowded) == 5_000


def test_a_pause_of_another_task_is_none_of_our_business(
    crowded: Database, around: Surroundings
) -> None:
    around.control.pause("tasks.occurrences.retention")

    assert run(policy_on(crowded), around).success


def test_a_stop_ends_one_run_even_inside_a_rest(crowded: Database, around: Surroundings) -> None:
    run_id = uuid4()
    sleepy = policy_on(crowded, pace=replace(SMALL_WINDOWS, duty=0.0001))  # rests of 5 s

    with running(sleepy, around, run_id=run_id) as ours:
        wait_until(lambda: crowded.one("SELECT to_regclass('housekeeping.run_window')"), 10)
        wait_until(lambda: ledger_rows(crowded), 10)
        around.control.stop(str(run_id))
        stopped = ours.result(2)

    assert (stopped.stop_reason, stopped.batches) == (StopReason.STOPPED, 1)
    assert run(policy_on(crowded), around).stop_reason is StopReason.EXHAUSTED
