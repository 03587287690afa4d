"""After the grace detached partitions are dropped: ours, and nothing that only looks like them."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg2
import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.policies.purge import PartitionCare, PurgePolicy
from tests.integration.database import Database
from tests.integration.partitions import (
    WHOLE,
    attached,
    fill,
    move_time,
    partitioned,
    states,
    there,
)
from tests.integration.runs import BRISK, DAYS, MONTH, policy_on, run, running

STAYING = [f"events_{k}" for k in range(4)]
ALL = [f"events_{k}" for k in range(10)]
MINUTE = timedelta(minutes=1)
OLDEST = "events_9"


def detached(database: Database, around: Surroundings, **given: Any) -> PurgePolicy:
    """Detach all that expired, with a grace of a minute; return the policy."""
    partitioned(database)
    fill(database)
    policy = policy_on(database, partitions=PartitionCare(grace=MINUTE), **given)
    assert run(policy, around).details["partitions_detached"] == len(WHOLE)
    return policy


def test_nothing_is_dropped_a_second_early_and_all_is_a_second_late(
    database: Database, around: Surroundings
) -> None:
    policy = detached(database, around)

    move_time(database, 58)
    assert run(policy, around).details["partitions_dropped"] == 0
    assert there(database) == ALL
    move_time(database, 3)
    result = run(policy, around)

    assert there(database) == STAYING
    assert result.details == {"expired": 0, "partitions_detached": 0, "partitions_dropped": 6}
    assert (result.total, result.success) == (0, True)  # they were counted when they left the table
    assert [each["done"] for each in result.tables] == ["dropped"] * 6
    assert set(states(database).values()) == {"dropped"}
    again = run(policy, around)
    assert (again.details["partitions_dropped"], again.success) == (0, True)


def test_a_dry_run_tells_what_would_be_dropped_and_drops_nothing(
    database: Database, around: Surroundings
) -> None:
    policy = detached(database, around)
    move_time(database, 61)

    told = run(policy, around, dry_run=True)

    assert told.plan is not None
    assert told.plan["details"]["partitions_dropped"] == 6
    assert there(database) == ALL


@pytest.mark.parametrize(
    ("care", "dropped"),
    [
        (PartitionCare(grace=MINUTE, then="keep"), 0),
        (PartitionCare(grace=10 * MINUTE), 0),
        (PartitionCare(grace=timedelta(0)), 6),
    ],
)
def test_what_the_policy_says_today_can_only_put_a_drop_off(
    database: Database, around: Surroundings, care: PartitionCare, dropped: int
) -> None:
    policy = replace(detached(database, around), partitions=care)

    assert run(policy, around).details["partitions_dropped"] == 0  # announced for a minute later
    move_time(database, 61)

    assert run(policy, around).details["partitions_dropped"] == dropped


def test_what_was_detached_to_be_kept_is_never_dropped(
    database: Database, around: Surroundings
) -> None:
    partitioned(database)
    fill(database)
    keeping = policy_on(database, partitions=PartitionCare(grace=MINUTE, then="keep"))
    first = run(keeping, around)
    assert {each["drop_after"] for each in first.tables[:6]} == {None}
    move_time(database, 3600)

    for policy in (keeping, replace(keeping, partitions=PartitionCare(grace=timedelta(0)))):
        assert run(policy, around).details["partitions_dropped"] == 0
    assert there(database) == ALL


def test_a_partition_that_was_attached_again_is_not_dropped(
    database: Database, around: Surroundings
) -> None:
    policy = detached(database, around)
    (bounds,) = database.column(
        "SELECT bounds FROM housekeeping.detached_partition WHERE relation_name = %s", OLDEST
    )
    database.run(f"ALTER TABLE events ATTACH PARTITION {OLDEST} {bounds}")
    move_time(database, 61)

    # Whoever takes a partition back raises keep_for, or it goes the same way again.
    longer = replace(policy, rules=(replace(policy.rules[0], keep_for=1000 * DAYS),))
    result = run(longer, around)

    assert attached(database) == [*STAYING, OLDEST]
    assert database.count(OLDEST) == 10
    assert result.details["partitions_dropped"] == 5
    assert states(database)[OLDEST] == "returned"
    assert any("attached again" in warning for warning in result.warnings)


@pytest.mark.parametrize(
    ("change", "state"),
    [
        (f"ALTER TABLE {OLDEST} RENAME TO kept", "changed"),
        (f"ALTER TABLE {OLDEST} RENAME TO kept; CREATE TABLE {OLDEST} (mine int)", "changed"),
        (f"ALTER TABLE events ATTACH PARTITION {OLDEST} {{bounds}}", "returned"),
    ],
    ids=["renamed", "replaced", "attached"],
)
def test_what_somebody_changes_while_we_wait_to_drop_it_is_not_dropped(
    database: Database, around: Surroundings, change: str, state: str
) -> None:
    """The last look is taken with the lock in hand."""
    patient = replace(BRISK, lock_timeout=timedelta(seconds=10))
    policy = detached(database, around, pace=patient)
    longer = replace(policy, rules=(replace(policy.rules[0], keep_for=1000 * DAYS),))
    move_time(database, 61)
    (bounds,) = database.column(
        "SELECT bounds FROM housekeeping.detached_partition WHERE relation_name = %s", OLDEST
    )
    oid = database.one("SELECT %s::regclass::oid", OLDEST)
    with database.session() as user, user.cursor() as cursor:
        cursor.execute(change.format(bounds=bounds))
        with running(longer, around) as ours:
            database.wait_until_we_wait_for_a_lock()
            user.commit()
            result = ours.result(30)

    assert database.count(f"(SELECT FROM pg_class WHERE oid = {oid}) x") == 1
    assert result.details["partitions_dropped"] == 5
    assert not result.success
    assert run(longer, around).success
    assert states(database)[OLDEST] == state
    assert database.count(f"(SELECT FROM pg_class WHERE oid = {oid}) x") == 1


def test_another_table_of_the_same_name_is_not_dropped(
    database: Database, around: Surroundings
) -> None:
    policy = detached(database, around)
    move_time(database, 61)
    database.run(f"DROP TABLE {OLDEST}; CREATE TABLE {OLDEST} (mine int)")
    database.run("ALTER TABLE events_8 RENAME TO precious; CREATE TABLE events_8 (mine int)")

    result = run(policy, around)

    assert database.count(OLDEST) == database.count("events_8") == 0
    assert database.count("precious") == 10
    assert (states(database)[OLDEST], states(database)["events_8"]) == ("gone", "changed")
    assert result.details["partitions_dropped"] == 4
    assert any("events_8 was renamed" in warning for warning in result.warnings)


def test_what_something_depends_on_is_not_dropped_and_the_others_are(
    database: Database, around: Surroundings
) -> None:
    policy = detached(database, around)
    move_time(database, 61)
    database.run(f"CREATE VIEW report AS SELECT * FROM {OLDEST}")

    result = run(policy, around)

    assert there(database) == [*STAYING, OLDEST]
    assert (result.success, result.exit_code) == (False, 2)
    assert any("depend" in warning for warning in result.warnings)
    error = database.one(
        "SELECT error FROM housekeeping.detached_partition WHERE error IS NOT NULL"
    )
    assert "depend" in error
    database.run("DROP VIEW report")
    assert run(policy, around).success
    assert there(database) == STAYING


def test_foreign_keys_of_a_detached_table_are_dropped_before_it_one_by_one(
    database: Database, around: Surroundings
) -> None:
    """Each takes a lock on the table it points at: whoever uses one holds up only that."""
    database.run(
        "CREATE TABLE kinds (kind int PRIMARY KEY); CREATE TABLE areas (area int PRIMARY KEY)"
    )
    partitioned(database, columns=", area int REFERENCES areas, kind int REFERENCES kinds")
    fill(database)
    policy = policy_on(database, partitions=PartitionCare(grace=MINUTE))
    run(policy, around)
    keys = (
        "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND conrelid = 'events_9'::regclass"
    )
    assert database.one(keys) == 2
    move_time(database, 61)

    with database.session() as user, user.cursor() as cursor:
        cursor.execute("SELECT FROM kinds FOR SHARE")
        busy = run(policy, around)

    assert not busy.success
    assert there(database) == ALL
    assert database.one(keys) == 1
    assert run(policy, around).success
    assert there(database) == STAYING


def test_a_detached_table_somebody_reads_is_dropped_another_time(
    database: Database, around: Surroundings
) -> None:
    policy = detached(database, around)
    move_time(database, 61)
    with database.session() as user, user.cursor() as cursor:
        cursor.execute(f"SELECT FROM {OLDEST}")
        first = run(policy, around)

    assert there(database) == [*STAYING, OLDEST]
    assert (first.details["partitions_dropped"], first.success) == (5, False)
    assert run(policy, around).details["partitions_dropped"] == 1


def test_a_subtree_is_dropped_with_all_below_it(database: Database, around: Surroundings) -> None:
    partitioned(database)
    database.run(
        "CREATE TABLE old PARTITION OF events FOR VALUES FROM ('1990-01-01') TO ('2000-01-01')"
        " PARTITION BY HASH (id);"
        "CREATE TABLE old_0 PARTITION OF old FOR VALUES WITH (MODULUS 1, REMAINDER 0);"
        "INSERT INTO events VALUES (500, '1995-01-01')"
    )
    fill(database)
    policy = policy_on(database, partitions=PartitionCare(grace=MINUTE))
    run(policy, around)
    assert database.count("old") == 1
    move_time(database, 61)

    result = run(policy, around)

    assert result.details["partitions_dropped"] == len(WHOLE) + 1
    assert database.one("SELECT to_regclass('old_0') IS NULL")


@pytest.mark.parametrize("beside_default", [False, True])
def test_a_detached_partition_can_be_attached_again_without_a_scan(
    database: Database, around: Surroundings, *, beside_default: bool
) -> None:
    """As docs/partitions.md says: DETACH CONCURRENTLY leaves a CHECK behind, else one is added."""
    partitioned(database)
    if beside_default:
        database.run("CREATE TABLE rest PARTITION OF events DEFAULT")
    fill(database)
    run(policy_on(database), around)
    (bounds,) = database.column(
        "SELECT bounds FROM housekeeping.detached_partition WHERE relation_name = %s", OLDEST
    )
    if beside_default:
        lower, upper = bounds.removeprefix("FOR VALUES FROM (").removesuffix(")").split(") TO (")
        database.run(
            f"ALTER TABLE {OLDEST} ADD CONSTRAINT bounds CHECK (created_at IS NOT NULL"
            f" AND created_at >= {lower} AND created_at < {upper}) NOT VALID"
        )
        database.run(f"ALTER TABLE {OLDEST} VALIDATE CONSTRAINT bounds")

    with database.session() as user, user.cursor() as cursor:
        cursor.execute("SET client_min_messages = debug1")
        cursor.execute(f"ALTER TABLE events ATTACH PARTITION {OLDEST} {bounds}")
        told = " ".join(user.notices)

    assert f'constraint for table "{OLDEST}" is implied by existing constraints' in told


def test_setting_drop_after_to_null_keeps_one_for_good(
    database: Database, around: Surroundings
) -> None:
    policy = detached(database, around)
    database.run(
        "UPDATE housekeeping.detached_partition SET drop_after = NULL WHERE relation_name = %s",
        OLDEST,
    )
    move_time(database, 61)

    assert run(policy, around).details["partitions_dropped"] == 5
    assert there(database) == [*STAYING, OLDEST]


def test_late_rows_for_a_detached_partition_are_refused_by_the_table_not_lost(
    database: Database, around: Surroundings
) -> None:
    detached(database, around)

    with pytest.raises(psycopg2.errors.CheckViolation):
        database.run("INSERT INTO events VALUES (1, now() - %s)", 3 * MONTH)
