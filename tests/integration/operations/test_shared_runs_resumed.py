"""A shared run whose owner died, taken up by an attempt that sees things otherwise."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from housekeeping.engine.outcomes import ConnectionLost
from housekeeping.engine.run import Surroundings
from housekeeping.operations.shared_runs.sharing import Shared, share
from housekeeping.policies.allowance import Allowance
from housekeeping.policies.errors import RunInterrupted
from housekeeping.policies.events import Event, EventStream, WindowCommitted
from housekeeping.policies.policy import Policy
from housekeeping.policies.purge import PurgePolicy
from housekeeping.policies.result import StopReason
from housekeeping.stores.postgres.connection import place
from housekeeping.stores.redis.semaphore import Place
from tests.integration.database import Database
from tests.integration.operations.sharing import (
    EXPIRED,
    KEPT,
    SHARED,
    assert_done_exactly_once,
    fill,
    nobody_comes,
)
from tests.integration.runs import (
    AfterWindow,
    ledger_rows,
    listening,
    per_status,
    policy_on,
    run,
)

ENDED = Shared(0, 0, "the run has ended")


@pytest.fixture
def filled(events: Database) -> Database:
    fill(events)
    return events


def cut_short(
    policy: PurgePolicy, around: Surroundings, when: Callable[[], bool] = lambda: True
) -> UUID:
    """Begin a shared run, and lose its owner after the first window, or the first `when` something
    is so; return the run's id.
    """

    def die(event: Event) -> None:
        if isinstance(event, WindowCommitted) and when():
            raise ConnectionLost("as if the network had gone")

    run_id = uuid4()
    dying = replace(
        around, recruit=nobody_comes, events=EventStream([die], passing=(ConnectionLost,))
    )
    with pytest.raises(RunInterrupted):
        run(policy, dying, run_id=run_id, will_retry=True)
    return run_id


@pytest.mark.parametrize("ended_by", ["a pause", "no place", "a limit"])
def test_who_comes_late_takes_no_row_of_a_run_whose_second_attempt_ended_at_once(
    filled: Database, around: Surroundings, ended_by: str
) -> None:
    policy = again = policy_on(filled, pace=SHARED)
    run_id = cut_short(policy, around)
    narrow = replace(around, workers_per_database=1)
    others = Place(around.redis, place(filled.url), "other", most=1, seconds=30)
    if ended_by == "a pause":
        around.control.pause(policy.task)
    elif ended_by == "no place":
        assert others.take()
        again = replace(policy, pace=replace(SHARED, time_budget=timedelta(seconds=1)))
    else:
        again = replace(policy, allowance=Allowance(rows=1_000))

    result = run(again, narrow, run_id=run_id)
    around.control.resume(policy.task)
    others.give_back()
    late = share(policy, run_id, "late@there", around)

    assert not result.success
    assert late == ENDED
    assert result.total == ledger_rows(filled) == EXPIRED + KEPT - filled.count("events")


@pytest.mark.parametrize("asked", ["row budget", "limit"])
def test_a_shared_run_that_is_given_a_row_limit_meanwhile_goes_on_in_one_hand(
    filled: Database, around: Surroundings, asked: str
) -> None:
    policy, most = policy_on(filled, pace=SHARED), EXPIRED // 2
    run_id = cut_short(policy, around)
    given: dict[str, Any] = {}
    again = policy
    if asked == "limit":
        given["limit"] = most
    else:
        again = replace(policy, pace=replace(SHARED, row_budget=most))
    late = AfterWindow(lambda: share(policy, run_id, "late@there", around))

    result = run(
        again, replace(listening(around, late), recruit=nobody_comes), run_id=run_id, **given
    )

    assert (result.stop_reason, result.total) == (StopReason.ROW_BUDGET, most)
    assert late.outcome == ENDED
    assert ledger_rows(filled) == most


def test_a_shared_run_that_is_given_an_allowance_meanwhile_goes_on_in_one_hand(
    filled: Database, around: Surroundings
) -> None:
    """Nobody counts what others take, and they hold the lock it needs for itself."""
    policy = policy_on(filled, pace=SHARED)
    run_id = cut_short(policy, around)
    late = AfterWindow(lambda: share(policy, run_id, "late@there", around))
    limited = replace(policy, allowance=Allowance(rows=EXPIRED))

    result = run(limited, listening(around, late), run_id=run_id)

    assert late.outcome == ENDED
    assert (result.stop_reason, result.success) == (StopReason.EXHAUSTED, True)
    assert (result.total, ledger_rows(filled)) == (EXPIRED, EXPIRED)


def test_a_shared_run_that_counted_alone_for_a_while_may_be_shared_again(
    filled: Database, around: Surroundings
) -> None:
    policy = policy_on(filled, pace=SHARED)
    run_id = cut_short(policy, around)
    limited = replace(policy, allowance=Allowance(rows=EXPIRED))

    def die(event: Event) -> None:
        if isinstance(event, WindowCommitted):
            raise ConnectionLost("again")

    dying = replace(around, events=EventStream([die], passing=(ConnectionLost,)))
    with pytest.raises(RunInterrupted):
        run(limited, dying, run_id=run_id, will_retry=True)

    result = run(policy, replace(around, recruit=nobody_comes), run_id=run_id)

    assert (result.stop_reason, result.success) == (StopReason.EXHAUSTED, True)
    assert filled.count("events") == KEPT
    assert result.total == ledger_rows(filled) == EXPIRED


def test_everybody_keeps_what_the_policy_keeps_by_the_time_the_run_is_taken_up(
    filled: Database, around: Surroundings
) -> None:
    """Other statuses than before: their cutoffs are new, and those of the ranges were old."""
    run_id = cut_short(policy_on(filled, rules=per_status(done=30, failed=30), pace=SHARED), around)
    gone = ledger_rows(filled)
    longer = policy_on(filled, rules=per_status(done=90), pace=SHARED)
    shares: list[Shared] = []

    def helping(policy: Policy, run_id: UUID, count: int) -> None:
        shares.append(share(longer, run_id, "helper@there", around))

    result = run(longer, replace(around, recruit=helping), run_id=run_id)

    assert [each.rows for each in shares] == [0]
    assert (result.total, result.success) == (gone, True)
    assert filled.count("events") == EXPIRED + KEPT - gone


def test_other_workers_understand_a_policy_that_gave_its_reasons_other_names(
    filled: Database, around: Surroundings
) -> None:
    run_id = cut_short(policy_on(filled, rules=per_status(done=30), pace=SHARED), around)
    plain = policy_on(filled, pace=SHARED)
    shares: list[Shared] = []

    def helping(policy: Policy, run_id: UUID, count: int) -> None:
        shares.append(share(plain, run_id, "helper@there", around))

    result = run(plain, replace(around, recruit=helping), run_id=run_id)

    assert [each.ended for each in shares] == ["exhausted"]
    assert shares[0].rows > 0
    assert_done_exactly_once(filled, result)


def test_a_row_that_stayed_is_told_once_by_whoever_goes_on_with_its_range(
    filled: Database, around: Surroundings
) -> None:
    filled.run(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF OLD.id = 1000 THEN RAISE 'not this one'; END IF; RETURN OLD; END $$;"
        "CREATE TRIGGER refuse BEFORE DELETE ON events FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    policy = policy_on(filled, pace=SHARED)
    passed = "SELECT count(*) > 0 FROM housekeeping.run_window WHERE error IS NOT NULL"
    run_id = cut_short(policy, around, lambda: filled.one(passed))

    result = run(policy, replace(around, recruit=nobody_comes), run_id=run_id)

    assert filled.count("events") == KEPT + 1
    assert (result.total, result.left_behind, result.success) == (EXPIRED - 1, 1, False)
