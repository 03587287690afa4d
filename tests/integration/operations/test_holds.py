"""Held rows stay, whatever a policy says."""

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.operations.holds import place_hold, release_hold
from housekeeping.policies.errors import HoldUnusable
from housekeeping.policies.hold import Hold
from housekeeping.policies.purge import KeepNewest, TableName
from housekeeping.policies.result import StopReason
from housekeeping.stores.postgres.connection import connected
from housekeeping.stores.postgres.hold_ledger import HOLDS_LOCK
from housekeeping.stores.postgres.window_ledger import share_fence, try_fence
from tests.integration.database import Database
from tests.integration.holding import (
    BOTH_WALKERS,
    LETTERS,
    PATIENT,
    WAYS,
    fill,
    hold_on,
    old,
    place,
    run_held,
)
from tests.integration.runs import (
    SMALL_WINDOWS,
    AfterWindow,
    listening,
    policy_on,
    run,
    running,
)


@WAYS
@BOTH_WALKERS
def test_held_rows_stay_and_the_others_go(
    events: Database, around: Surroundings, walker: str, placed: str
) -> None:
    fill(events)

    result = run_held(events, around, placed, "id IN (35, 50)", walker=walker)

    assert old(events) == [35, 50]
    assert (result.total, result.success, result.left_behind) == (29, True, 0)
    assert len(result.holds) == 1
    assert "case 42" in result.holds[0]


@WAYS
def test_no_yes_lifts_a_hold(events: Database, around: Surroundings, placed: str) -> None:
    fill(events)

    run_held(events, around, placed, "id = 35", confirmed=True)

    assert old(events) == [35]


@BOTH_WALKERS
def test_a_row_for_which_the_expression_is_null_or_false_is_not_held(
    events: Database, around: Surroundings, walker: str
) -> None:
    fill(events)
    events.run("UPDATE events SET note = CASE id WHEN 35 THEN 'yes' WHEN 36 THEN 'no' END")

    run(policy_on(events, holds=(hold_on("note = 'yes'"),)), around, walker=walker)

    assert old(events) == [35]


def test_every_hold_holds_by_itself(events: Database, around: Surroundings) -> None:
    fill(events)
    place(events, "id = 35")
    place(events, "note = 'nothing has it'")
    holds = (hold_on("id = 36"), hold_on("id < 0 OR id = 37 OR NULL", name="another"))

    result = run(policy_on(events, holds=holds), around)

    assert old(events) == [35, 36, 37]
    assert len(result.holds) == 4


def test_a_released_hold_holds_no_longer(events: Database, around: Surroundings) -> None:
    fill(events)
    number = place(events, "id = 35")
    run(policy_on(events), around)
    assert release_hold(events.url, number, "lawyer@here")

    result = run(policy_on(events), around)

    assert (old(events), result.total, result.holds) == ([], 1, ())
    released = events.rows("SELECT released_by, released_at IS NULL FROM housekeeping.hold")
    assert released == [("lawyer@here", False)]


def test_a_hold_on_a_partitioned_table_holds_in_its_partitions(
    database: Database, around: Surroundings
) -> None:
    database.run(
        "CREATE TABLE events (id int, created_at timestamptz) PARTITION BY RANGE (created_at);"
        "CREATE TABLE events_old PARTITION OF events FOR VALUES FROM (MINVALUE) TO (MAXVALUE);"
        "CREATE TABLE base (id int, created_at timestamptz); CREATE TABLE heir () INHERITS (base);"
        "INSERT INTO events SELECT i, now() - i * interval '1 day' FROM generate_series(1, 60) i;"
        "INSERT INTO heir SELECT * FROM events"
    )
    place(database, "id = 35")
    place(database, "id = 36", "base")

    run(policy_on(database, "events_old"), around)
    run(policy_on(database, "heir"), around)

    assert (old(database), old(database, "heir")) == ([35], [36])


@pytest.mark.parametrize(
    ("hold", "fault"),
    [
        (hold_on("true", "no_such_table"), "there is no table no_such_table"),
        (hold_on("no_such_column = 1"), "no_such_column"),
        (hold_on("id = 1; DROP TABLE events"), "semicolon"),
        (hold_on("id"), "boolean"),
        (hold_on("count(*) > 1"), "aggregate"),
        (hold_on("true", "a_view"), "no table"),
    ],
    ids=["table", "column", "statement", "no boolean", "aggregate", "view"],
)
@pytest.mark.parametrize("table", ["events", "others"])
def test_a_hold_that_can_not_be_honoured_stops_every_policy_on_the_database(
    events: Database, around: Surroundings, hold: Hold, fault: str, table: str
) -> None:
    fill(events)
    events.run("CREATE VIEW a_view AS SELECT * FROM events")
    events.run("CREATE TABLE others AS TABLE events")

    for dry_run in (True, False):
        with pytest.raises(HoldUnusable, match=fault) as refused:
            run(policy_on(events, table, holds=(hold,)), around, dry_run=dry_run)

    assert "[holds.lawsuit]" in refused.value.message
    assert events.count(table) == 60


def test_a_hold_whose_table_went_away_stops_every_policy_and_says_how_to_release_it(
    events: Database, around: Surroundings
) -> None:
    fill(events)
    events.run("CREATE TABLE others AS TABLE events")
    number = place(events, "id = 35", "others")
    events.run("ALTER TABLE others RENAME TO somebody_elses")

    with pytest.raises(HoldUnusable, match=f"housekeeping hold release {number}"):
        run(policy_on(events), around)

    assert events.count("events") == 60


def test_a_hold_with_a_condition_that_fails_on_a_row_lets_that_row_stay(
    events: Database, around: Surroundings
) -> None:
    fill(events)
    events.run("UPDATE events SET note = CASE WHEN id = 35 THEN 'abc' ELSE '1' END")

    result = run(policy_on(events, holds=(hold_on("note::int = 0"),)), around)

    assert (old(events), result.left_behind, result.success) == ([35], 1, False)


@BOTH_WALKERS
def test_a_row_that_comes_to_be_held_while_we_wait_for_it_stays(
    events: Database, around: Surroundings, walker: str
) -> None:
    fill(events)
    policy = policy_on(events, holds=(hold_on("status = 'evidence'"),), pace=PATIENT)
    with events.session() as user, user.cursor() as cursor:
        cursor.execute("UPDATE events SET status = 'evidence' WHERE id = 35")
        with running(policy, around, walker=walker) as ours:
            events.wait_until_we_wait_for_a_lock()
            user.commit()
            ours.result(30)

    assert old(events) == [35]


@BOTH_WALKERS
@pytest.mark.parametrize("table", ["events", "letters"])
def test_a_hold_placed_while_a_run_is_under_way_is_honoured_from_the_next_window_on(
    events: Database, around: Surroundings, walker: str, table: str
) -> None:
    events.run(
        "INSERT INTO events SELECT i, now() - (50000 - i) * interval '1 hour'"
        " FROM generate_series(1, 20000) i"
    )
    events.run(LETTERS)
    events.run("ANALYZE")
    placing = AfterWindow(lambda: place(events, "id % 1000 = 0", table), 2)

    result = run(policy_on(events, pace=SMALL_WINDOWS), listening(around, placing), walker=walker)

    assert placing.outcome
    held = events.column("SELECT id FROM events ORDER BY 1")
    assert held == list(range(held[0], 20_001, 1_000))
    assert len(held) > 10
    assert events.count("letters") == len(held)
    assert result.total == 20_000 - len(held)
    assert (result.stop_reason, result.success) == (StopReason.EXHAUSTED, True)
    assert len(result.holds) == 1


def test_a_hold_that_is_no_good_placed_by_hand_mid_run_stops_the_run(
    events: Database, around: Surroundings
) -> None:
    events.run(
        "INSERT INTO events SELECT i, now() - interval '60 days' FROM generate_series(1, 5000) i"
    )
    by_hand = AfterWindow(
        lambda: events.run(
            "INSERT INTO housekeeping.hold (relation, condition, reason, placed_by)"
            " VALUES ('evnts', 'true', 'a slip', 'somebody')"
        )
    )

    result = run(policy_on(events, pace=SMALL_WINDOWS), listening(around, by_hand), walker="heap")

    assert (result.stop_reason, result.exit_code) == (StopReason.STOPPED, 2)
    assert "there is no table evnts" in result.warnings[-1]
    assert 0 < result.total == 5_000 - events.count("events")


def test_placing_a_hold_waits_for_windows_under_way_and_windows_for_it(
    events: Database, around: Surroundings
) -> None:
    """A user's row lock keeps our window open; the hold is placed only once that has ended."""
    fill(events)
    run(policy_on(events, where="false"), around)
    with events.session() as user, user.cursor() as cursor:
        cursor.execute("SELECT FROM events WHERE id = 40 FOR UPDATE")
        with running(policy_on(events, pace=PATIENT), around) as ours:
            events.wait_until_we_wait_for_a_lock()
            with pytest.raises(Exception, match="a window of a run"):
                place_hold(events.url, TableName("events"), "true", "x", "y", patience=0.2)
            user.commit()
            assert ours.result(30).total == 31

    assert place(events, "true")


def test_a_dry_run_counts_held_rows_apart_and_tells_the_same_as_a_run(
    events: Database, around: Surroundings
) -> None:
    fill(events)
    events.run(LETTERS)
    place(events, "id IN (5, 35, 36)")
    policy = policy_on(
        events, holds=(hold_on("id = 36 OR id = 37", "letters"),), keep_newest=KeepNewest(rows=20)
    )

    planned = run(policy, around, dry_run=True)
    done = run(policy, around)

    assert planned.plan is not None
    assert planned.plan["would_delete"] == done.total == 28
    assert planned.plan["held"] == 3
    assert planned.holds == done.holds
    assert len(done.holds) == 2


def test_a_role_that_may_not_change_holds_runs_under_them(
    events: Database, around: Surroundings
) -> None:
    fill(events)
    place(events, "id = 35")
    role = f"purger_{events.one('SELECT oid FROM pg_database WHERE datname = current_database()')}"
    events.run(
        f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA housekeeping TO {role};"
        f"GRANT ALL ON ALL TABLES IN SCHEMA housekeeping TO {role};"
        f"REVOKE INSERT, UPDATE, DELETE ON housekeeping.hold FROM {role};"
        f"GRANT SELECT, UPDATE, DELETE ON events TO {role}"
    )
    try:
        host = events.url.split("@", 1)[1]
        run(policy_on(events, database_url=f"postgresql://{role}@{host}"), around)
        assert old(events) == [35]
    finally:
        events.run(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_no_batch_begins_while_a_hold_is_being_placed(
    events: Database, around: Surroundings
) -> None:
    """Neither one that has the table alone nor one that shares it with other workers."""
    run(policy_on(events), around)
    with (
        events.session() as lawyer,
        lawyer.cursor() as cursor,
        connected(events.url, "hk:test") as connection,
    ):
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (HOLDS_LOCK,))
        for fence in (try_fence, share_fence):
            with connection.begin():
                assert not fence(connection, 1)
        lawyer.rollback()
        for fence in (try_fence, share_fence):
            with connection.begin():
                assert fence(connection, 1)
