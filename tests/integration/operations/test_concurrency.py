"""Users at work while a run deletes: what they touch survives, and nobody waits for anybody."""

import time
from dataclasses import replace

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.policies.purge import Equals, KeptBy
from housekeeping.policies.result import RunResult, StopReason
from tests.integration.database import Database
from tests.integration.runs import BRISK, ledger_rows, per_status, policy_on, run, running

BOTH_WALKERS = pytest.mark.parametrize("walker", ["heap", "index"])
# Long enough for a user to commit while we wait, short enough for a test to wait it out.
PATIENT = replace(BRISK, lock_timeout=25 * BRISK.lock_timeout)

SHAPES = {
    "plain": "SELECT 1",
    "children": (
        "CREATE TABLE logs (event bigint REFERENCES events ON DELETE CASCADE);"
        "CREATE INDEX ON logs (event); INSERT INTO logs SELECT id FROM events"
    ),
    "kept": "CREATE TABLE holds (event bigint); INSERT INTO holds VALUES (-1)",
    "forbidding": (
        "CREATE TABLE bills (event bigint REFERENCES events); CREATE INDEX ON bills (event)"
    ),
}
EVERY_SHAPE = pytest.mark.parametrize("shape", list(SHAPES))


def fill(database: Database, shape: str, days: int = 60) -> None:
    database.run(
        "INSERT INTO events SELECT i, now() - i * interval '1 day', 'done'"
        " FROM generate_series(1, %s) i",
        days,
    )
    database.run("CREATE INDEX ON events (status, created_at)")
    database.run(SHAPES[shape])
    database.run("VACUUM ANALYZE events")


def kept_by(shape: str) -> tuple[KeptBy, ...]:
    return (KeptBy(table="holds", column="event", refers_to="id"),) if shape == "kept" else ()


def run_into(
    database: Database, around: Surroundings, walker: str, shape: str, users_change: str
) -> RunResult:
    """Run into a user's open transaction, which commits once we wait for it."""
    policy = policy_on(database, rules=per_status(done=30), kept_by=kept_by(shape), pace=PATIENT)
    with database.session() as user, user.cursor() as cursor:
        cursor.execute(users_change)
        with running(policy, around, walker=walker) as ours:
            database.wait_until_we_wait_for_a_lock()
            user.commit()
            return ours.result(30)


@BOTH_WALKERS
@EVERY_SHAPE
@pytest.mark.parametrize(
    "change",
    ["created_at = now()", "status = 'retried'", "status = NULL", "created_at = NULL"],
)
def test_a_row_that_stops_matching_while_we_delete_survives(
    events: Database, around: Surroundings, walker: str, shape: str, change: str
) -> None:
    fill(events, shape)

    users_change = f"UPDATE events SET {change} WHERE id IN (40, 60)"
    result = run_into(events, around, walker, shape, users_change)

    assert events.column("SELECT id FROM events WHERE id >= 30 ORDER BY id") == [40, 60]
    assert result.total == 29
    if shape == "children":
        assert events.column("SELECT event FROM logs WHERE event >= 30 ORDER BY 1") == [40, 60]
        assert result.details["logs"] == 29


@BOTH_WALKERS
@EVERY_SHAPE
def test_a_row_a_user_deletes_meanwhile_is_not_counted(
    events: Database, around: Surroundings, walker: str, shape: str
) -> None:
    fill(events, shape)

    result = run_into(events, around, walker, shape, "DELETE FROM events WHERE id = 40")

    assert (events.count("events"), result.total, ledger_rows(events)) == (29, 30, 30)


@BOTH_WALKERS
@pytest.mark.parametrize("shape", ["children", "forbidding"])
def test_a_child_a_user_adds_meanwhile_keeps_its_row_when_the_policy_says_so(
    events: Database, around: Surroundings, walker: str, shape: str
) -> None:
    """The row is not locked against a new child until we lock it; then we must look again."""
    fill(events, shape)
    table = "logs" if shape == "children" else "bills"
    events.run(f"TRUNCATE {table}")
    policy = policy_on(
        events,
        kept_by=(KeptBy(table=table, column="event", refers_to="id"),),
        pace=PATIENT,
    )
    with events.session() as user, user.cursor() as cursor:
        cursor.execute(f"INSERT INTO {table} VALUES (40)")
        with running(policy, around, walker=walker) as ours:
            events.wait_until_we_wait_for_a_lock()
            user.commit()
            result = ours.result(30)

    assert events.column("SELECT id FROM events WHERE id >= 30") == [40]
    assert events.column(f"SELECT event FROM {table}") == [40]
    assert result.total == 30


@BOTH_WALKERS
def test_a_child_that_begins_to_protect_its_row_meanwhile_is_not_destroyed(
    events: Database, around: Surroundings, walker: str
) -> None:
    """Reopening a dead letter locks the letter, not its occurrence."""
    fill(events, "plain")
    events.run(
        "CREATE TABLE letters (event bigint REFERENCES events ON DELETE CASCADE, resolved bool);"
        "CREATE INDEX ON letters (event); INSERT INTO letters SELECT id, true FROM events"
    )
    keeps = KeptBy(
        table="letters",
        column="event",
        refers_to="id",
        while_any=(Equals(column="resolved", values=(False,)),),
    )
    policy = policy_on(events, kept_by=(keeps,), pace=PATIENT)
    with events.session() as user, user.cursor() as cursor:
        cursor.execute("UPDATE letters SET resolved = false WHERE event = 40")
        with running(policy, around, walker=walker) as ours:
            events.wait_until_we_wait_for_a_lock()
            user.commit()
            ours.result(30)

    assert events.column("SELECT event FROM letters WHERE NOT resolved") == [40]
    assert events.column("SELECT id FROM events WHERE id >= 30") == [40]


@BOTH_WALKERS
@EVERY_SHAPE
def test_a_row_a_user_holds_is_not_waited_for_and_goes_next_time(
    events: Database, around: Surroundings, walker: str, shape: str
) -> None:
    fill(events, shape)
    policy = policy_on(events, kept_by=kept_by(shape))
    with events.session() as user, user.cursor() as cursor:
        cursor.execute("SELECT FROM events WHERE id IN (40, 50) FOR UPDATE")
        begun = time.monotonic()
        first = run(policy, around, walker=walker)
        took = time.monotonic() - begun

    assert took < 5
    assert (first.total, first.left_behind) == (29, 2)
    assert (first.stop_reason, first.success, first.exit_code) == (StopReason.EXHAUSTED, False, 2)
    assert first.warnings[-1].startswith("2 expired rows stayed")
    assert first.batches == 1  # passed over at once, not found by halving the window

    second = run(policy, around, walker=walker)

    assert (second.total, second.success, second.left_behind) == (2, True, 0)
    assert ledger_rows(events) == 31


@BOTH_WALKERS
def test_a_run_with_a_limit_says_so_too_when_a_row_is_held(
    events: Database, around: Surroundings, walker: str
) -> None:
    fill(events, "plain")
    with events.session() as user, user.cursor() as cursor:
        cursor.execute("SELECT FROM events WHERE id = 40 FOR UPDATE")
        result = run(policy_on(events), around, walker=walker, limit=1_000)

    assert result.total == 30
    assert not result.success
    assert result.left_behind == 1


@BOTH_WALKERS
def test_a_user_who_waits_for_us_gets_his_turn_within_a_window(
    events: Database, around: Surroundings, walker: str
) -> None:
    """A reader of a row we delete is never in our way, and an update finds the row gone."""
    fill(events, "children")
    with events.session() as user, user.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SELECT count(*) FROM events")
        result = run(policy_on(events), around, walker=walker)
        cursor.execute("SELECT count(*) FROM events")
        assert cursor.fetchone() == (60,)

    assert (result.total, result.success) == (31, True)


@BOTH_WALKERS
def test_a_held_child_keeps_only_its_own_row(
    events: Database, around: Surroundings, walker: str
) -> None:
    fill(events, "children")
    with events.session() as user, user.cursor() as cursor:
        cursor.execute("SELECT FROM logs WHERE event = 40 FOR UPDATE")
        result = run(policy_on(events), around, walker=walker)

    assert events.column("SELECT id FROM events WHERE id >= 30") == [40]
    assert (result.total, result.left_behind, result.success) == (30, 1, False)
