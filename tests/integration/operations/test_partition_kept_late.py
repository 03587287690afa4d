"""Detached partitions somebody thinks better of: at the last moment, or without telling the ledger."""

from dataclasses import replace
from datetime import timedelta

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.policies.purge import PartitionCare, PurgePolicy
from tests.integration.database import Database
from tests.integration.partitions import WHOLE, fill, move_time, partitioned, states, there
from tests.integration.runs import BRISK, policy_on, run, running

STAYING = [f"events_{k}" for k in range(4)]
OLDEST = "events_9"
PATIENT = replace(BRISK, lock_timeout=timedelta(seconds=10))


@pytest.fixture
def policy(database: Database, around: Surroundings) -> PurgePolicy:
    """A policy that has detached all that expired, and whose grace is over."""
    partitioned(database)
    fill(database)
    policy = policy_on(database, partitions=PartitionCare(grace=timedelta(minutes=1)), pace=PATIENT)
    assert run(policy, around).details["partitions_detached"] == len(WHOLE)
    move_time(database, 61)
    return policy


@pytest.mark.parametrize("change", ["drop_after = NULL", "drop_after = now() + interval '1 d'"])
def test_a_drop_put_off_while_we_wait_for_a_reader_is_put_off(
    database: Database, policy: PurgePolicy, around: Surroundings, change: str
) -> None:
    with database.session() as reader, reader.cursor() as cursor:
        cursor.execute(f"SELECT FROM {OLDEST}")
        with running(policy, around) as ours:
            database.wait_until_we_wait_for_a_lock()
            database.run(
                f"UPDATE housekeeping.detached_partition SET {change} WHERE relation_name = '{OLDEST}'"
            )
            reader.rollback()
            result = ours.result(30)

    assert there(database) == [*STAYING, OLDEST]
    assert result.details["partitions_dropped"] == 5


def test_a_partition_whose_rows_another_table_has_inherited_is_not_dropped(
    database: Database, policy: PurgePolicy, around: Surroundings
) -> None:
    database.run(f"CREATE TABLE history (LIKE {OLDEST}); ALTER TABLE {OLDEST} INHERIT history")

    result = run(policy, around)

    assert database.count("history") == 10
    assert result.details["partitions_dropped"] == 5
    assert states(database)[OLDEST] == "returned"
