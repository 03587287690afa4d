"""What would go whole stays for the sake of a held row: partitions, detached ones, archived months."""

from datetime import timedelta

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.operations.holds import release_hold
from housekeeping.policies.allowance import Allowance
from housekeeping.policies.errors import PolicyRefused
from housekeeping.policies.purge import KeepNewest, PartitionCare
from housekeeping.policies.result import StopReason
from tests.integration.archived import archive_two_months, expire, expiring
from tests.integration.archived import there as archives_there
from tests.integration.database import Database
from tests.integration.holding import hold_on, place
from tests.integration.partitions import WHOLE, fill, move_time, partitioned, there
from tests.integration.runs import AfterWindow, listening, policy_on, run

GRACE = timedelta(minutes=1)


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
    assert not kept.success

    release_hold(database.url, number, "lawyer@here")
    assert run(policy, around).details["partitions_dropped"] == 1


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
