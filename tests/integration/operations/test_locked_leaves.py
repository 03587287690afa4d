"""A partition somebody has locked: told and counted as left, and all the others are cleared."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest

from housekeeping.engine import purging
from housekeeping.engine.run import Surroundings
from housekeeping.policies.errors import RunInterrupted
from housekeeping.policies.result import StopReason
from tests.integration.database import Database
from tests.integration.partitions import EXPIRED, ages, fill, partitioned
from tests.integration.runs import AfterWindow, listening, per_status, policy_on, run

# Rules by status: no partition goes whole. They go oldest first, so one is cleared before this.
LOCKED = "events_8"
OF_LOCKED = list(range(76, 86))
TERMINATE = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name LIKE 'hk:tables%'"
)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purging, "TABLE_PATIENCE_SECONDS", 0.3)


@pytest.fixture
def events(database: Database) -> Database:
    partitioned(database)
    fill(database)
    return database


@contextmanager
def locked(database: Database, mode: str, table: str = LOCKED) -> Iterator[None]:
    with database.session() as user, user.cursor() as cursor:
        cursor.execute("SET application_name = 'an index build'")
        cursor.execute(f"LOCK TABLE {table} IN {mode} MODE")
        yield
        user.rollback()


def test_a_locked_partition_keeps_no_other_from_being_cleared(
    events: Database, around: Surroundings
) -> None:
    policy = policy_on(events, rules=per_status(done=30))
    with locked(events, "SHARE"):
        first = run(policy, around)

    assert ages(events) == [*range(30), *OF_LOCKED]
    assert (first.stop_reason, first.success) == (StopReason.EXHAUSTED, False)
    assert first.total == EXPIRED - len(OF_LOCKED)
    assert 0 < first.left_behind <= 2 * len(OF_LOCKED)  # by the planner's estimate
    (told,) = [warning for warning in first.warnings if LOCKED in warning]
    assert "another session has locked it" in told
    assert "an index build" in told
    entry = next(each for each in first.tables if each["table"] == f"public.{LOCKED}")
    assert entry["done"] == "left"
    second = run(policy, around)
    assert (second.success, first.total + second.total) == (True, EXPIRED)


def test_one_that_can_not_even_be_looked_at_is_passed_over_too(
    events: Database, around: Surroundings
) -> None:
    """ALTER TABLE, VACUUM FULL: it came after the run had looked at the table."""
    policy = policy_on(events, rules=per_status(done=30))
    with events.session() as user, user.cursor() as cursor:
        lock = AfterWindow(lambda: cursor.execute(f"LOCK TABLE {LOCKED} IN ACCESS EXCLUSIVE MODE"))
        result = run(policy, listening(around, lock))
        assert lock.outcome is None

    assert ages(events) == [*range(30), *OF_LOCKED]
    assert (result.stop_reason, result.success) == (StopReason.EXHAUSTED, False)
    assert result.left_behind == 1  # at least: its rows could not even be estimated


def test_one_that_is_locked_before_the_run_begins_is_worth_another_attempt(
    events: Database, around: Surroundings
) -> None:
    """Without a look at it nothing can be planned; it ended as a failure that nobody tries again."""
    by_age, by_status = policy_on(events), policy_on(events, rules=per_status(done=30))
    noted = policy_on(events, where="status = 'done'")
    with locked(events, "ACCESS EXCLUSIVE"):
        with pytest.raises(RunInterrupted, match=r"public\.events or a partition of it is locked"):
            run(by_age, around, will_retry=True)
        for policy in (by_status, noted):
            with pytest.raises(RunInterrupted, match="lock timeout"):
                run(policy, around, will_retry=True)

    assert run(by_status, around).total == EXPIRED


def test_a_later_attempt_that_comes_through_is_a_success(
    events: Database, around: Surroundings
) -> None:
    policy, run_id = policy_on(events, rules=per_status(done=30)), uuid4()
    passed = "SELECT count(*) FROM housekeeping.run_window WHERE walk = 'locked'"
    killer = AfterWindow(lambda: events.run(TERMINATE), when=lambda: events.one(passed) > 0)
    with locked(events, "SHARE"), pytest.raises(RunInterrupted):
        run(policy, listening(around, killer), run_id=run_id, will_retry=True)
    assert killer.outcome is None

    result = run(policy, around, run_id=run_id)

    assert ages(events) == list(range(30))
    assert (result.total, result.left_behind, result.success) == (EXPIRED, 0, True)
    assert "left" not in {each["done"] for each in result.tables}
