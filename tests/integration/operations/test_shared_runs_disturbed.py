"""A shared run whose table, rows or workers are disturbed: its account stays exact."""

from dataclasses import replace
from threading import Event
from uuid import UUID, uuid4

import pytest

from housekeeping.engine.outcomes import ConnectionLost
from housekeeping.engine.run import Surroundings
from housekeeping.engine.shards import digest_of
from housekeeping.operations.shared_runs.sharing import share
from housekeeping.policies.errors import RunInterrupted
from housekeeping.policies.events import Event as RunEvent
from housekeeping.policies.events import EventStream, WindowCommitted
from housekeeping.policies.policy import Policy
from housekeeping.policies.result import RunResult, StopReason
from housekeeping.stores.postgres.connection import connected, guarded
from housekeeping.stores.postgres.shard_ledger import ShardClaims
from tests.conditions import wait_until
from tests.integration.database import Database
from tests.integration.holding import place
from tests.integration.operations.sharing import (
    EXPIRED,
    KEPT,
    OVERLAPS,
    SHARED,
    assert_done_exactly_once,
    crew,
    nobody_comes,
    run_shared,
)
from tests.integration.runs import (
    AfterWindow,
    ledger_rows,
    listening,
    policy_on,
    run,
)


def test_rows_that_move_behind_the_former_end_are_looked_at_once_more(
    sharable: Database, around: Surroundings
) -> None:
    def move() -> None:
        sharable.run(
            "UPDATE events SET note = repeat('y', 60) WHERE status = 'done' AND id > 40000"
        )

    with crew(around) as helpers:
        result = run_shared(
            policy_on(sharable, pace=SHARED), listening(around, AfterWindow(move)), helpers
        )

    assert result.stop_reason is StopReason.EXHAUSTED
    assert sharable.count("events") == KEPT + result.left_behind
    assert result.total == ledger_rows(sharable) == EXPIRED - result.left_behind


def test_an_owner_whose_backend_dies_goes_on_under_its_id_beside_its_helpers(
    sharable: Database, around: Surroundings
) -> None:
    policy, run_id = policy_on(sharable, pace=SHARED), uuid4()

    def die(event: RunEvent) -> None:
        if isinstance(event, WindowCommitted) and not dead:
            dead.append(1)
            raise ConnectionLost("as if the network had gone")

    dead: list[int] = []
    with crew(around) as helpers:
        interrupted = replace(around, events=EventStream([die], passing=(ConnectionLost,)))
        with pytest.raises(RunInterrupted, match=str(run_id)):
            run_shared(policy, interrupted, helpers, run_id=run_id, will_retry=True)
        result = run_shared(policy, around, helpers, run_id=run_id, will_retry=True)

    assert_done_exactly_once(sharable, result)
    assert sharable.one("SELECT attempts FROM housekeeping.run") == 2


def test_a_table_rewritten_meanwhile_is_cut_anew(sharable: Database, around: Surroundings) -> None:
    policy, run_id = policy_on(sharable, pace=SHARED), uuid4()
    rewrite = AfterWindow(lambda: sharable.run("VACUUM FULL events"), window=3)

    with crew(around) as helpers:
        with pytest.raises(RunInterrupted, match="rewritten"):
            run_shared(policy, listening(around, rewrite), helpers, run_id=run_id, will_retry=True)
        result = run_shared(policy, around, helpers, run_id=run_id, will_retry=True)

    assert_done_once_in_two_heaps(sharable, result)


def test_a_row_that_stayed_is_told_once_though_its_table_was_cut_anew(
    sharable: Database, around: Surroundings
) -> None:
    sharable.run(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE 'not this one'; END $$;"
        "CREATE TRIGGER refuse BEFORE DELETE ON events FOR EACH ROW WHEN (OLD.id = 1)"
        " EXECUTE FUNCTION refuse()"
    )
    policy, run_id = policy_on(sharable, pace=SHARED), uuid4()
    passed = "SELECT count(*) FROM housekeeping.run_window WHERE error IS NOT NULL"
    rewrite = AfterWindow(
        lambda: sharable.run("VACUUM FULL events"), when=lambda: sharable.one(passed) > 0
    )

    with crew(around) as helpers:
        with pytest.raises(RunInterrupted, match="rewritten"):
            run_shared(policy, listening(around, rewrite), helpers, run_id=run_id, will_retry=True)
        result = run_shared(policy, around, helpers, run_id=run_id, will_retry=True)

    assert rewrite.outcome is None
    assert sharable.count("events") == KEPT + 1
    assert (result.total, result.left_behind) == (EXPIRED - 1, 1)


def assert_done_once_in_two_heaps(database: Database, result: RunResult) -> None:
    """Ranges of the heap before and after overlap in number only."""
    assert result.success
    assert database.count("events") == KEPT
    assert result.total == ledger_rows(database) == EXPIRED


def test_a_new_run_takes_over_what_a_dead_owner_left_and_settles_its_account(
    sharable: Database, around: Surroundings
) -> None:
    policy, dead = policy_on(sharable, pace=SHARED), uuid4()

    def die(event: RunEvent) -> None:
        if isinstance(event, WindowCommitted):
            raise ConnectionLost("gone for good")

    with pytest.raises(RunInterrupted):
        run(
            policy,
            replace(
                around, recruit=nobody_comes, events=EventStream([die], passing=(ConnectionLost,))
            ),
            run_id=dead,
            will_retry=True,
        )
    with crew(around) as helpers:
        result = run_shared(policy, around, helpers)

    assert share(policy, dead, "zombie@there", around).ended == "the run has ended"
    assert result.success
    assert sharable.count("events") == KEPT
    assert result.total == EXPIRED - sharable.one(
        "SELECT total FROM housekeeping.run WHERE id = %s", str(dead)
    )
    assert ledger_rows(sharable) == EXPIRED


def test_a_row_that_refuses_to_go_is_passed_by_whoever_meets_it(
    sharable: Database, around: Surroundings
) -> None:
    sharable.run(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF OLD.id IN (1, 20001) THEN RAISE 'not this one'; END IF; RETURN OLD; END $$;"
        "CREATE TRIGGER refuse BEFORE DELETE ON events FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    with crew(around) as helpers:
        result = run_shared(policy_on(sharable, pace=SHARED), around, helpers)

    assert (result.stop_reason, result.success) == (StopReason.EXHAUSTED, False)
    assert (result.total, result.left_behind) == (EXPIRED - 2, 2)
    assert sharable.rows(OVERLAPS) == []


def test_an_error_no_worker_can_cure_fails_the_run_with_exact_totals(
    sharable: Database, around: Surroundings
) -> None:
    sharable.run(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF OLD.id = 30001 THEN RAISE 'no space left' USING ERRCODE = '53100'; END IF;"
        " RETURN OLD; END $$;"
        "CREATE TRIGGER full_disk BEFORE DELETE ON events FOR EACH ROW EXECUTE FUNCTION full_disk()"
    )
    with crew(around) as helpers:
        result = run_shared(policy_on(sharable, pace=SHARED), around, helpers)

    assert (result.stop_reason, result.error) == (StopReason.ERROR, "no space left")
    assert result.total == ledger_rows(sharable) == EXPIRED + KEPT - sharable.count("events")


def test_ranges_of_a_worker_that_gives_no_sign_of_life_are_taken_over(
    sharable: Database, around: Surroundings
) -> None:
    def claim_and_die(policy: Policy, run_id: UUID, count: int) -> None:
        with connected(policy.database_url, "hk:dead") as connection:
            claims = ShardClaims(run_id, "dead@there", digest_of(policy))
            for _ in range(2):
                with guarded(connection, policy.pace):
                    assert claims.claim(connection) is not None

    result = run(policy_on(sharable, pace=SHARED), replace(around, recruit=claim_and_die))

    assert_done_exactly_once(sharable, result)
    assert sharable.column(
        "SELECT number FROM housekeeping.shard WHERE claim = 2 ORDER BY number"
    ) == [1, 2]


def test_a_worker_that_is_merely_slow_keeps_its_range(
    sharable: Database, around: Surroundings
) -> None:
    slow = replace(SHARED, duty=0.1)
    with crew(around) as helpers:

        def recruit(policy: Policy, run_id: UUID, count: int) -> None:
            helpers(replace(policy, pace=slow), run_id, count)
            wait_until(lambda: sharable.one("SELECT max(claim) FROM housekeeping.shard"), 10)

        result = run(policy_on(sharable, pace=SHARED), replace(around, recruit=recruit))
        shared = helpers.shares[0].result(20)

    assert_done_exactly_once(sharable, result)
    assert shared.ranges > 0
    assert sharable.column("SELECT DISTINCT claim FROM housekeeping.shard") == [1]


def test_a_hold_placed_meanwhile_binds_every_worker(
    sharable: Database, around: Surroundings
) -> None:
    of_the_case = "SELECT id FROM events WHERE id % 7 = 0 ORDER BY id"
    # Each waits for the other where it matters: both have removed rows before the hold, and both go
    # on after it, however fast either of them is.
    helper_began, held, helper_went_on = Event(), Event(), Event()

    def hold() -> list[int]:
        assert helper_began.wait(20)
        place(sharable, "id % 7 = 0")
        held.set()
        return sharable.column(of_the_case)

    def stand_still() -> bool:
        helper_began.set()
        return held.wait(20)

    holding, together = AfterWindow(hold, 2), AfterWindow(lambda: helper_went_on.wait(20), 3)
    standing, going_on = AfterWindow(stand_still, 2), AfterWindow(helper_went_on.set, 3)
    with crew(listening(around, standing, going_on)) as helpers:
        result = run_shared(
            policy_on(sharable, pace=SHARED), listening(around, holding, together), helpers
        )

    assert standing.outcome
    assert together.outcome
    assert holding.outcome
    assert sharable.column(of_the_case) == holding.outcome
    assert result.success
    assert sharable.one("SELECT count(*) FROM events WHERE id % 11 <> 0 AND id % 7 <> 0") == 0
    assert result.total == ledger_rows(sharable) == EXPIRED + KEPT - sharable.count("events")
    assert sharable.rows(OVERLAPS) == []
    assert helpers.shares[0].result(1).ended in ("exhausted", "the run has ended")
