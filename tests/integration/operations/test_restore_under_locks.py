"""A month is put back into a table that somebody has locked: the lock is told from a row's."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.operations.archives import restoring as restoring_loop
from housekeeping.operations.archives import standing_back
from housekeeping.policies.archives import RestorePolicy
from housekeeping.policies.errors import TableBlocked
from housekeeping.policies.result import RunResult, StopReason
from housekeeping.stores.postgres.hold_ledger import HOLDS_LOCK
from tests.conditions import stays_true, wait_until
from tests.integration.archived import (
    LIVE_AND_CSV,
    ROWS,
    ledger_holds_what_is_there,
    prepared,
    put_back,
    restoring,
)
from tests.integration.database import Database

EVERY_LOCK = pytest.mark.parametrize("mode", ["SHARE", "ACCESS EXCLUSIVE"])
TRIED = (
    "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'hk:archives.restore%%'"
    " AND (query LIKE '%%locks.whole_table%%' OR wait_event_type = 'Lock')"
)


@contextmanager
def putting_back(policy: RestorePolicy, around: Surroundings) -> Iterator[Future[RunResult]]:
    """Restore in another thread; the block ends when that has."""
    with ThreadPoolExecutor(1) as threads:
        yield threads.submit(put_back, policy, around)


@EVERY_LOCK
@LIVE_AND_CSV
def test_a_lock_on_the_whole_table_is_waited_for_and_no_row_is_blamed(
    archived: Database, around: Surroundings, tmp_path: Path, kind: str, mode: str
) -> None:
    policy = prepared(archived, around, tmp_path, kind)
    with archived.session() as user, user.cursor() as cursor:
        cursor.execute(f"LOCK TABLE events IN {mode} MODE")
        with putting_back(policy, around) as ours:
            wait_until(lambda: archived.one(TRIED), 10)
            user.rollback()
            result = ours.result(30)

    assert (result.success, result.total, result.left_behind) == (True, 20, 0), result
    assert result.details["restored"] == 20
    assert ledger_holds_what_is_there(archived)


@EVERY_LOCK
@LIVE_AND_CSV
def test_a_lock_that_does_not_end_ends_the_run_which_names_table_and_session(
    archived: Database,
    around: Surroundings,
    tmp_path: Path,
    kind: str,
    mode: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    policy = prepared(archived, around, tmp_path, kind)
    monkeypatch.setattr(standing_back, "TABLE_PATIENCE_SECONDS", 1.0)
    with archived.session() as user, user.cursor() as cursor:
        cursor.execute(f"LOCK TABLE events IN {mode} MODE")
        told, holder = outcome(policy, around), user.info.backend_pid
        user.rollback()

    assert "public.events has been locked by another session for" in told
    assert f"public.events is locked by session {holder}" in caplog.text
    assert archived.count("events") == 0
    assert ledger_holds_what_is_there(archived)
    again = put_back(policy, around)
    assert (again.success, again.total) == (True, 20)


def outcome(policy: RestorePolicy, around: Surroundings) -> str:
    """Return what a restore that can't go on says, whether it had begun or not."""
    try:
        result = put_back(policy, around)
    except TableBlocked as blocked:
        return blocked.message
    assert (result.stop_reason, result.exit_code) == (StopReason.ERROR, 1), result
    assert (result.total, result.left_behind) == (0, 0), result
    return result.error or ""


def test_a_lock_on_the_dated_table_is_waited_for_too(
    archived: Database, around: Surroundings
) -> None:
    with archived.session() as user, user.cursor() as cursor:
        cursor.execute("LOCK TABLE old_2024_01 IN ACCESS EXCLUSIVE MODE")
        with putting_back(restoring(archived), around) as ours:
            wait_until(lambda: archived.one(TRIED), 10)
            user.rollback()
            result = ours.result(30)
    assert (result.success, result.total) == (True, 20), result


def test_a_row_somebody_holds_in_the_dated_table_is_no_lock_on_it(
    archived: Database, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring_loop, "_ATTEMPTS", 1)
    monkeypatch.setattr(restoring_loop, "_PAUSE_SECONDS", 0.01)
    with archived.session() as user, user.cursor() as cursor:
        cursor.execute("SELECT FROM old_2024_01 WHERE id = 4 FOR UPDATE")
        result = put_back(restoring(archived), around)
        user.rollback()
    assert result.stop_reason is StopReason.EXHAUSTED
    assert result.left_behind >= 1
    assert put_back(restoring(archived), around).success
    assert len(archived.rows(ROWS)) == 20


@LIVE_AND_CSV
def test_a_hold_that_is_being_placed_makes_no_row_be_refused(
    archived: Database,
    around: Surroundings,
    tmp_path: Path,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever places one keeps every window out, for up to 15 s."""
    monkeypatch.setattr(restoring_loop, "_PAUSE_SECONDS", 0.01)
    policy = prepared(archived, around, tmp_path, kind)
    with archived.session() as user, user.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [HOLDS_LOCK])
        with putting_back(policy, around) as ours:
            assert stays_true(lambda: not ours.done(), 2)
            user.rollback()
            result = ours.result(30)
    assert (result.success, result.total, result.left_behind) == (True, 20, 0), result


def test_a_fence_that_is_never_free_ends_the_run_and_blames_no_row(
    archived: Database, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring_loop, "_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(restoring_loop, "_FENCE_PATIENCE_SECONDS", 0.5)
    with archived.session() as user, user.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [HOLDS_LOCK])
        result = put_back(restoring(archived), around)
        user.rollback()
    assert (result.stop_reason, result.left_behind) == (StopReason.LOCK_LOST, 0), result
    assert archived.count("old_2024_01") == 20
