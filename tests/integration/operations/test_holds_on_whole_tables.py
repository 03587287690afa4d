"""What would go whole stays for the sake of a held row: partitions, detached ones, archived months."""

from datetime import timedelta

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.operations.holds import place_hold, release_hold
from housekeeping.policies.allowance import Allowance
from housekeeping.policies.errors import HoldDelayed, PolicyRefused
from housekeeping.policies.purge import KeepNewest, PartitionCare, TableName
from housekeeping.policies.result import StopReason
from housekeeping.stores.postgres.hold_ledger import HOLDS_LOCK
from tests.conditions import wait_until
from tests.integration.archived import archive_two_months, expire, expiring
from tests.integration.archived import there as archives_there
from tests.integration.database import Database
from tests.integration.holding import hold_on, place
from tests.integration.partitions import WHOLE, fill, move_time, partitioned, there
from tests.integration.runs import AfterWindow, listening, policy_on, run, running

GRACE = timedelta(minutes=1)
DETACHING = (
    "SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE '%DETACH PARTITION%CONCURRENTLY%'"
    " AND wait_event_type = 'Lock' AND pid <> pg_backend_pid()"
)


def old_rows(database: Database) -> int:
    return int(
        database.one(
            "SELECT count(*) FROM events WHERE created_at < now() - interval '30 days 1 minute'"
        )
    )


def test_under_a_hold_every_row_of_a_partition_goes_by_itself(
    database: Database, around: Surroundings
) -> None:
    partitioned(database)
    fill(database)
    held = database.one("SELECT max(id) FROM events")
    place(database, f"id = {held}")

    planned = run(policy_on(database), around, dry_run=True)
    result = run(policy_on(database), around)

    assert old_rows(database) == 1
    assert database.one(f"SELECT count(*) FROM events WHERE id = {held}") == 1
    assert (result.details["partitions_detached"], result.success) == (0, True)
    assert planned.plan is not None
    assert (planned.plan["would_delete"], planned.plan["held"]) == (result.total, 1)
    assert len(there(database)) == 10


def test_a_hold_on_another_table_lets_partitions_go_whole(
    database: Database, around: Surroundings
) -> None:
    partitioned(database)
    fill(database)
    database.run("CREATE TABLE others (id int)")

    result = run(policy_on(database, holds=(hold_on("true", "others"),)), around)

    assert result.details["partitions_detached"] == len(WHOLE)


def test_a_hold_placed_after_the_first_partition_is_honoured_by_the_second(
    database: Database, around: Surroundings
) -> None:
    partitioned(database)
    fill(database)
    placing = AfterWindow(lambda: place(database, "true"))

    result = run(policy_on(database), listening(around, placing))

    assert placing.outcome
    assert result.details["partitions_detached"] == 1
    assert (result.details["expired"], result.success) == (result.total, True)
    assert old_rows(database) > 0


def test_a_detached_partition_with_held_rows_is_not_dropped_until_they_are_released(
    database: Database, around: Surroundings
) -> None:
    partitioned(database)
    fill(database)
    policy = policy_on(database, partitions=PartitionCare(grace=GRACE))
    assert run(policy, around).details["partitions_detached"] == len(WHOLE)
    held = database.one("SELECT min(id) FROM events_9")
    number = place(database, f"id = {held}")
    move_time(database, 120)

    kept = run(policy, around)
    assert "events_9" in there(database)
    assert kept.details["partitions_dropped"] == len(WHOLE) - 1
    assert any("events_9: hold" in warning for warning in kept.warnings)
    assert kept.success  # what is held is not left undone

    release_hold(database.url, number, "lawyer@here")
    assert run(policy, around).details["partitions_dropped"] == 1


def test_a_detached_partition_with_held_rows_keeps_its_foreign_keys(
    database: Database, around: Surroundings
) -> None:
    database.run("CREATE TABLE accounts (id int PRIMARY KEY)")
    partitioned(database, columns=", account int REFERENCES accounts")
    fill(database)
    policy = policy_on(database, partitions=PartitionCare(grace=GRACE))
    run(policy, around)
    place(database, f"id = {database.one('SELECT min(id) FROM events_9')}")
    move_time(database, 120)

    assert run(policy, around).details["partitions_dropped"] == len(WHOLE) - 1

    assert database.column("SELECT conname FROM pg_constraint WHERE contype = 'f'"
                           " AND conrelid = 'events_9'::regclass")  # fmt: skip


def test_a_drop_that_meets_the_placing_of_a_hold_is_left_for_the_next_run(
    database: Database, around: Surroundings
) -> None:
    partitioned(database)
    fill(database)
    policy = policy_on(database, partitions=PartitionCare(grace=GRACE))
    run(policy, around)
    move_time(database, 120)
    with database.session() as placing, placing.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (HOLDS_LOCK,))
        result = run(policy, around)

    assert len(there(database)) == 10
    assert (result.stop_reason, result.success) == (StopReason.LOCK_LOST, False)
    why = "SELECT count(*) FROM housekeeping.detached_partition WHERE error IS NOT NULL"
    assert database.one(why) == len(WHOLE)


def test_a_dry_run_tells_that_a_hold_keeps_a_detached_partition(
    database: Database, around: Surroundings
) -> None:
    partitioned(database)
    fill(database)
    policy = policy_on(database, partitions=PartitionCare(grace=GRACE))
    run(policy, around)
    place(database, f"id = {database.one('SELECT min(id) FROM events_9')}")
    move_time(database, 120)

    planned = run(policy, around, dry_run=True)
    done = run(policy, around)

    assert planned.plan is not None
    assert planned.plan["details"] == done.details
    assert any("events_9: hold" in warning for warning in planned.warnings)


def test_a_hold_waits_for_a_partition_that_is_being_detached(
    database: Database, around: Surroundings
) -> None:
    """Its rows are out of sight as soon as that has begun, and it waits for a reader of the table."""
    partitioned(database)
    fill(database)
    held = database.one("SELECT max(id) FROM events")
    with database.session() as reader, reader.cursor() as cursor:
        cursor.execute("SELECT FROM events WHERE id = 0")
        with running(policy_on(database), around) as ours:
            wait_until(lambda: database.one(DETACHING) or ours.done(), 10)
            with pytest.raises(HoldDelayed):
                place_hold(database.url, TableName("events"), f"id = {held}", "x", "y", 0.3)
            reader.rollback()
            ours.result(30)


def test_an_unusable_hold_that_comes_between_two_looks_stops_the_run_and_hides_nothing(
    database: Database, around: Surroundings
) -> None:
    """The drop of a partition is the last thing before the leaves are looked up."""
    partitioned(database)
    fill(database)
    policy = policy_on(database, partitions=PartitionCare(grace=GRACE))
    run(policy, around)
    move_time(database, 120)
    by_hand = AfterWindow(
        lambda: database.run(
            "INSERT INTO housekeeping.hold (relation, condition, reason, placed_by)"
            " VALUES ('evnts', 'true', 'a slip', 'somebody')"
        ),
        window=len(WHOLE),
    )

    result = run(policy, listening(around, by_hand))

    assert by_hand.outcome is None
    assert (result.stop_reason, result.exit_code) == (StopReason.STOPPED, 2)
    assert result.details["partitions_dropped"] == len(WHOLE)
    assert "there is no table evnts" in result.warnings[-1]
    assert database.one("SELECT count(*) FROM housekeeping.run WHERE ended_at IS NULL") == 0


def test_what_the_planner_believes_of_whole_partitions_does_not_use_a_limit_up(
    database: Database, around: Surroundings
) -> None:
    """The oldest was emptied by hand; its statistics are from before."""
    partitioned(database)
    fill(database, times=200)
    database.run("DELETE FROM events_9")
    left = database.one("SELECT count(*) FROM events WHERE created_at < now() - interval '30 days'")

    result = run(policy_on(database, allowance=Allowance(rows=left)), around)

    assert (result.stop_reason, result.success, result.total) == (StopReason.EXHAUSTED, True, left)
    assert result.details["partitions_detached"] == len(WHOLE)
    assert old_rows(database) == 0


def test_a_month_of_the_archive_with_held_rows_is_not_dropped(
    events: Database, around: Surroundings
) -> None:
    archive_two_months(events, around)
    held = events.one("SELECT min(id) FROM old_2024_01")
    number = place(events, f"id = {held}")

    planned = expire(expiring(events), around, dry_run=True)
    result = expire(expiring(events), around)

    assert archives_there(events) == ["public.old_2024_01"]
    assert (result.total, result.success) == (1, True)  # what is held is not left undone
    for told in (planned, result):
        (why,) = [table["why"] for table in told.tables if table["table"] == "public.old_2024_01"]
        assert "holds rows of it" in why
    release_hold(events.url, number, "lawyer@here")
    assert expire(expiring(events), around).total == 1


@pytest.mark.parametrize("short", [0, 1], ids=["exactly", "one more"])
def test_a_limit_counts_the_rows_of_all_partitions_before_the_first_one_goes(
    database: Database, around: Surroundings, short: int
) -> None:
    partitioned(database)
    fill(database)
    going = run(policy_on(database), around, dry_run=True)
    assert going.plan is not None
    allowed = Allowance(rows=going.plan["would_delete"] - short)

    result = run(policy_on(database, allowance=allowed), around)

    if short:
        assert (result.total, result.stop_reason) == (0, StopReason.STOPPED)
        assert len(there(database)) == 10
    else:
        assert (result.total, result.success) == (going.plan["would_delete"], True)
        assert result.details["partitions_detached"] == len(WHOLE)


def test_the_newest_rows_of_a_table_in_parts_are_nobodys_to_keep(
    database: Database, around: Surroundings
) -> None:
    partitioned(database)

    with pytest.raises(PolicyRefused, match="in parts"):
        run(policy_on(database, keep_newest=KeepNewest(rows=5)), around)
