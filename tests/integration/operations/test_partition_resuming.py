"""A run on a partitioned table that was interrupted goes on in the partition it had come to."""

from datetime import timedelta
from uuid import uuid4

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.operations.partitions.steps import WALK
from housekeeping.policies.errors import RunInterrupted
from housekeeping.policies.purge import PartitionCare
from housekeeping.policies.result import StopReason
from tests.integration.database import Database
from tests.integration.partitions import EXPIRED, attached, fill, partitioned
from tests.integration.runs import (
    SMALL_WINDOWS,
    AfterWindow,
    ledger_rows,
    listening,
    policy_on,
    run,
)

TIMES = 200
GRACELESS = PartitionCare(grace=timedelta(0))
TERMINATE = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name LIKE 'hk:tables%'"
)
WALKED = "SELECT count(DISTINCT target) FROM housekeeping.run_window"
WINDOWS = (
    "SELECT target, number, done_to FROM housekeeping.run_window WHERE run_id = %s ORDER BY number"
)


@pytest.mark.parametrize("window", [1, 2])
@pytest.mark.parametrize("leaves", [1, 2, 5])
def test_rows_of_every_partition_are_counted_once(
    database: Database, around: Surroundings, leaves: int, window: int
) -> None:
    """Interrupted after some window of the first, the second, the fifth partition."""
    partitioned(database)
    fill(database, times=TIMES)
    policy = policy_on(database, where="true", pace=SMALL_WINDOWS)
    run_id = uuid4()
    killer = AfterWindow(
        lambda: database.run(TERMINATE), window, when=lambda: database.one(WALKED) >= leaves
    )
    with pytest.raises(RunInterrupted):
        run(policy, listening(around, killer), run_id=run_id, will_retry=True)
    before = database.rows(WINDOWS, str(run_id))

    result = run(policy, around, run_id=run_id)

    assert (result.stop_reason, result.total) == (StopReason.EXHAUSTED, EXPIRED * TIMES)
    assert database.count("events") == 30 * TIMES
    windows = database.rows(WINDOWS, str(run_id))
    assert [number for _, number, _ in windows] == list(range(1, result.batches + 1))
    assert windows[: len(before)] == before
    ended = {target for target, _, _ in before} - {before[-1][0]}
    assert len(ended) == leaves - 1
    again = {target for target, _, _ in windows[len(before) :]}
    assert not ended & again  # what was cleared is not walked again
    deleted = {each["table"]: each["rows"] for each in result.tables if each["done"] == "deleted"}
    assert sum(deleted.values()) == EXPIRED * TIMES
    assert len(deleted) == 7


def test_whole_partitions_of_an_interrupted_run_are_counted_once(
    database: Database, around: Surroundings
) -> None:
    partitioned(database)
    fill(database)
    run_id = uuid4()
    killer = AfterWindow(lambda: database.run(TERMINATE), 3)
    with pytest.raises(RunInterrupted):
        run(policy_on(database), listening(around, killer), run_id=run_id, will_retry=True)
    assert len(attached(database)) == 7

    result = run(policy_on(database), around, run_id=run_id)

    assert (result.total, result.details["partitions_detached"]) == (EXPIRED, 6)
    assert ledger_rows(database) == EXPIRED
    whole = "SELECT count(*) FROM housekeeping.run_window WHERE walk = %s"
    assert database.one(whole, WALK) == 6
    assert [each["done"] for each in result.tables].count("detached") == 6


def test_a_redelivered_message_gets_the_same_answer(
    database: Database, around: Surroundings
) -> None:
    partitioned(database)
    fill(database)
    run_id = uuid4()

    first = run(policy_on(database), around, run_id=run_id)
    again = run(policy_on(database), around, run_id=run_id)

    assert again.as_dict() == first.as_dict()
    assert len(again.tables) == 7


def test_two_policies_on_one_table_do_not_drop_each_others_partitions_early(
    database: Database, around: Surroundings
) -> None:
    """They share its lease, its fence and what was detached from it."""
    partitioned(database)
    fill(database)
    run(policy_on(database), around)

    other = run(
        policy_on(database, name="other", where="status = 'none'", partitions=GRACELESS), around
    )

    assert (other.total, other.success) == (0, True)
    assert other.details["partitions_dropped"] == 0
