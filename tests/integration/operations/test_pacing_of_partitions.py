"""Whole partitions wait for a well database as windows of rows do."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.policies.events import Event, RunPaced
from housekeeping.policies.health import HealthLimits
from housekeeping.policies.purge import Age, PartitionCare, PurgePolicy
from housekeeping.policies.result import StopReason
from tests.conditions import wait_until
from tests.integration.database import Database
from tests.integration.operations.test_hypertables import chunks, hypertable
from tests.integration.partitions import WHOLE, attached, fill, partitioned, there
from tests.integration.runs import BRISK, listening, policy_on, run, running

ALL = [f"events_{k}" for k in range(10)]
SALE = "INSERT INTO sale VALUES ('summer sale')"


@pytest.fixture
def shop(database: Database) -> Database:
    """A partitioned table, and a table that says when there is a sale."""
    partitioned(database)
    fill(database)
    database.run("CREATE TABLE sale (reason text)")
    return database


def careful(policy: PurgePolicy, patience: timedelta = timedelta(0)) -> PurgePolicy:
    """Return a policy that waits so long for a sale to be over."""
    limits = HealthLimits(sql="SELECT 'stop: ' || reason FROM sale", patience=patience)
    return replace(policy, pace=replace(BRISK, health=limits))


def forget_samples(around: Surroundings) -> None:
    """Have the next run ask the database itself: runs share a sample for half a second."""
    around.redis.flushall()


def test_no_partition_is_detached_while_a_signal_says_stop(
    shop: Database, around: Surroundings
) -> None:
    shop.run(SALE)
    result = run(careful(policy_on(shop)), around)

    assert attached(shop) == ALL
    assert (result.stop_reason, result.details["partitions_detached"]) == (StopReason.THROTTLED, 0)
    assert any("summer sale" in warning for warning in result.warnings)


def test_no_detached_partition_is_dropped_meanwhile(shop: Database, around: Surroundings) -> None:
    policy = careful(policy_on(shop, partitions=PartitionCare(grace=timedelta(0))))
    assert run(policy, around).success
    shop.run(SALE)
    forget_samples(around)

    result = run(policy, around)

    assert there(shop) == ALL
    assert (result.stop_reason, result.details["partitions_dropped"]) == (StopReason.THROTTLED, 0)
    shop.run("DELETE FROM sale")
    forget_samples(around)
    assert run(policy, around).details["partitions_dropped"] == len(WHOLE)


def test_no_chunk_is_dropped_meanwhile(database: Database, around: Surroundings) -> None:
    hypertable(database)
    before = chunks(database)
    database.run("CREATE TABLE sale (reason text)")
    database.run(SALE)

    result = run(careful(policy_on(database, "metrics", age=Age(columns=("at",)))), around)

    assert chunks(database) == before
    assert result.stop_reason is StopReason.THROTTLED


def waiting(
    shop: Database, around: Surroundings, then: Callable[[], object]
) -> tuple[StopReason, int]:
    """Let a run wait for the sale to be over, do something, and return how it ended."""
    shop.run(SALE)
    heard: list[Event] = []
    policy = careful(policy_on(shop), timedelta(seconds=20))
    with running(policy, listening(around, heard.append)) as ours:
        wait_until(
            lambda: (
                any(isinstance(e, RunPaced) and e.verdict == "stop" for e in heard) or ours.done()
            ),
            20,
        )
        assert attached(shop) == ALL
        then()
        result = ours.result(30)
    return result.stop_reason, result.details["partitions_detached"]


def test_it_goes_on_once_the_signal_has_cleared(shop: Database, around: Surroundings) -> None:
    ended = waiting(shop, around, lambda: shop.run("DELETE FROM sale"))
    assert ended == (StopReason.EXHAUSTED, len(WHOLE))


def test_a_pause_is_heard_in_the_wait(shop: Database, around: Surroundings) -> None:
    assert waiting(shop, around, around.control.pause) == (StopReason.PAUSED, 0)
