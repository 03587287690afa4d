"""Dropping beside users: we wait no longer than lock_timeout, try again, and nobody waits for us."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.operations.archives import group_expiry
from housekeeping.policies.result import RunResult, StopReason
from housekeeping.stores.postgres.archives import unchanged
from tests.conditions import wait_until
from tests.integration.archived import (
    FEBRUARY,
    JANUARY,
    entry,
    expire,
    expiring,
    put_back,
    restoring,
    there,
)
from tests.integration.database import Database
from tests.integration.runs import BRISK, AfterWindow, listening

QUICK = replace(BRISK, lock_timeout=timedelta(milliseconds=100))


@contextmanager
def expiring_beside(database: Database, around: Surroundings, **given: Any) -> Iterator[Any]:
    with ThreadPoolExecutor(1) as threads:
        yield threads.submit(expire, expiring(database, pace=QUICK, **given), around)


def test_a_reader_is_waited_for_in_short_turns_and_the_table_goes_when_it_is_done(
    archived: Database, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_expiry, "_PAUSES", (0.3,) * 40)
    with archived.session() as reader, reader.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM old_2024_01")  # and keeps its lock
        with expiring_beside(archived, around) as running:
            archived.wait_until_we_wait_for_a_lock()
            # A second reader arrives while we wait: it queues behind us for 0.1 s at most.
            longest = 0.0
            for _ in range(10):
                begun = time.monotonic()
                assert archived.count("old_2024_01") == 20
                longest = max(longest, time.monotonic() - begun)
            assert longest < 1.0
            assert not running.done()
            reader.rollback()
            result: RunResult = running.result(timeout=30)
    assert (result.success, result.total) == (True, 2)


def test_a_reader_that_does_not_end_keeps_its_table_and_only_that(
    archived: Database, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_expiry, "_PAUSES", (0.05, 0.05))
    with archived.session() as reader, reader.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM old_2024_01")
        with expiring_beside(archived, around) as running:
            result: RunResult = running.result(timeout=30)
    assert (result.success, result.total, result.left_behind) == (False, 1, 20)
    assert "another session holds it" in entry(result, JANUARY)["why"]
    assert result.details["kept_incomplete"] == 0
    assert there(archived) == [JANUARY]


def test_waiting_for_a_lock_ends_when_an_operator_says_so(
    archived: Database, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_expiry, "_PAUSES", (60.0,))
    with archived.session() as reader, reader.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM old_2024_01")
        with expiring_beside(archived, around) as running:
            archived.wait_until_we_wait_for_a_lock()
            around.control.pause("tasks.database.drop_expired_archives")
            result: RunResult = running.result(timeout=15)
    assert result.stop_reason is StopReason.PAUSED
    assert len(there(archived)) == 2


def test_an_archive_run_that_lost_its_lease_can_not_write_while_we_drop(
    archived: Database, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A window of it that is under way holds the source's fence; we wait for it, then it is ours."""
    monkeypatch.setattr(group_expiry, "_PAUSES", (0.2,) * 50)
    oid = archived.one("SELECT 'events'::regclass::oid::bigint")
    fence = "SELECT fence FROM housekeeping.target WHERE relation = 'public.events'"
    before = archived.one(fence)
    with archived.session() as stale, stale.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock((26731::bigint << 32) | %s)", (oid,))
        with expiring_beside(archived, around) as running:
            archived.wait_until_we_wait_for_a_lock()
            assert len(there(archived)) == 2
            stale.rollback()
            assert running.result(timeout=30).success
    assert archived.one(fence) == before + 1


def test_whoever_writes_to_a_dated_table_while_it_is_counted_waits_and_is_let_through(
    archived: Database, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_expiry, "_PAUSES", (0.2,))
    count = unchanged.fingerprint

    def slowly(connection: Any, *given: Any, **more: Any) -> Any:
        connection.exec_driver_sql("SELECT pg_sleep(20)")
        return count(connection, *given, **more)

    monkeypatch.setattr(unchanged, "fingerprint", slowly)
    counting = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE query = 'SELECT pg_sleep(20)' AND state = 'active'"
    )
    with expiring_beside(archived, around) as running:
        wait_until(lambda: archived.one(counting) > 0, 10)
        begun = time.monotonic()
        archived.run(
            "INSERT INTO old_2024_01 SELECT 0, created_at, status, note, archived_at,"
            " archived_by_run FROM old_2024_01 LIMIT 1"
        )
        assert time.monotonic() - begun < 5
        around.control.pause("tasks.database.drop_expired_archives")
        running.result(timeout=30)
    assert archived.count("old_2024_01") == 21


def test_a_window_of_such_a_run_that_begins_later_keeps_the_table(
    archived: Database, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_expiry, "_PAUSES", (0.05,))
    oid = archived.one("SELECT 'events'::regclass::oid::bigint")
    with archived.session() as stale, stale.cursor() as cursor:

        def begin_a_window() -> None:
            cursor.execute("SELECT pg_advisory_xact_lock((26731::bigint << 32) | %s)", (oid,))

        begins = AfterWindow(begin_a_window)
        result = expire(expiring(archived, pace=QUICK), listening(around, begins))
        assert begins.outcome is None
    assert (result.success, result.total) == (False, 1)
    assert "another run is at work on public.events" in entry(result, FEBRUARY)["why"]
    assert there(archived) == [FEBRUARY]


def test_a_month_somebody_has_locked_keeps_no_other_from_going(
    archived: Database, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_expiry, "_PAUSES", (0.05,))
    with archived.session() as user, user.cursor() as cursor:
        cursor.execute("LOCK TABLE old_2024_01")  # as VACUUM FULL does
        result = expire(expiring(archived, pace=QUICK), around)

    assert (result.total, result.success, result.left_behind) == (1, False, 20)
    assert there(archived) == [JANUARY]
    assert "another session holds it" in entry(result, JANUARY)["why"]


def test_a_month_somebody_has_locked_keeps_no_other_from_being_put_back(
    archived: Database, around: Surroundings
) -> None:
    with archived.session() as user, user.cursor() as cursor:
        cursor.execute("LOCK TABLE old_2024_02")
        assert put_back(restoring(archived, pace=QUICK), around).total == 20
