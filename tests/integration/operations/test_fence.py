"""The fence in PostgreSQL: it holds even when Redis was flushed, restarted or lied."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.policies.result import StopReason
from housekeeping.stores.postgres.hold_ledger import HOLDS_LOCK
from tests.conditions import stays_true, wait_until
from tests.integration.database import Database
from tests.integration.runs import SMALL_WINDOWS, ledger_rows, policy_on, run, running

TAKE = "SELECT pg_advisory_xact_lock((26731::bigint << 32) | 'events'::regclass::oid::bigint)"

NOT_GRANTED = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


class HurriedClock:
    """Lets time pass without waiting for it."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def filled(events: Database) -> Database:
    events.run(
        "INSERT INTO events SELECT i, now() - interval '60 days' - i * interval '1 s'"
        " FROM generate_series(1, 20000) i"
    )
    events.run("VACUUM ANALYZE events")
    return events


def test_nothing_goes_while_another_sessions_batch_is_under_way(
    filled: Database, around: Surroundings
) -> None:
    with filled.session() as other, other.cursor() as cursor:
        cursor.execute(TAKE)
        with running(policy_on(filled), around) as ours:
            wait_until(lambda: filled.one("SELECT to_regclass('housekeeping.run')"), 5)
            wait_until(lambda: filled.count("housekeeping.run"), 5)
            assert stays_true(lambda: filled.count("events") == 20_000, 0.5)
            assert not ours.done()
            other.rollback()
            result = ours.result(20)

    assert (result.stop_reason, result.total) == (StopReason.EXHAUSTED, 20_000)


def test_a_batch_that_never_ends_sends_the_run_away(filled: Database, around: Surroundings) -> None:
    with filled.session() as other, other.cursor() as cursor:
        cursor.execute(TAKE)
        result = run(policy_on(filled), replace(around, clock=HurriedClock()))

    assert (result.stop_reason, result.total, result.exit_code) == (StopReason.LOCK_LOST, 0, 2)
    assert "another session keeps deleting" in result.warnings[-1]


class SlowedClock(HurriedClock):
    """A second of its time is a twentieth of one."""

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds / 20)
        super().sleep(seconds)


def test_a_hold_that_waits_for_another_tables_step_sends_no_run_away(
    filled: Database, around: Surroundings
) -> None:
    """Placing one waits for as much as 15 s, and nobody begins a window meanwhile."""
    clock = SlowedClock()
    with (
        filled.session() as step,
        step.cursor() as cursor,
        filled.session() as lawyer,
        lawyer.cursor() as placing,
        ThreadPoolExecutor(1) as threads,
    ):
        cursor.execute("SELECT pg_advisory_xact_lock_shared(%s)", (HOLDS_LOCK,))
        asked = threads.submit(placing.execute, "SELECT pg_advisory_xact_lock(%s)", (HOLDS_LOCK,))
        wait_until(lambda: filled.one(NOT_GRANTED) == 1, 5)
        with running(policy_on(filled), replace(around, clock=clock)) as ours:
            wait_until(lambda: clock.now > 15 or ours.done(), 10)
            step.rollback()
            asked.result(5)
            lawyer.rollback()
            result = ours.result(20)

    assert (result.stop_reason, result.total) == (StopReason.EXHAUSTED, 20_000)


@pytest.mark.parametrize("walker", ["heap", "index"])
def test_rows_go_only_together_with_the_record_of_their_window(
    filled: Database, around: Surroundings, walker: str
) -> None:
    run(policy_on(filled), around, limit=1)
    filled.run(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = '53100'; END $$;"
        "CREATE TRIGGER full_disk BEFORE INSERT ON housekeeping.run_window FOR EACH ROW"
        " WHEN (NEW.number = 2) EXECUTE FUNCTION full_disk()"
    )

    result = run(policy_on(filled, pace=SMALL_WINDOWS), around, walker=walker)

    assert (result.stop_reason, result.error) == (StopReason.ERROR, "no space left")
    assert filled.count("events") == 20_000 - ledger_rows(filled)
    assert result.total == ledger_rows(filled) - 1
