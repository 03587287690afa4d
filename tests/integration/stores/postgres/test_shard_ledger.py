"""Claims on ranges: one worker a range, and a worker that lost one can't commit in it any more."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from uuid import uuid4

import pytest
from sqlalchemy import Connection

from housekeeping.policies.errors import LeaseTaken, ShardTaken
from housekeeping.stores.postgres.catalog import TableFacts
from housekeeping.stores.postgres.connection import guarded
from housekeeping.stores.postgres.fencing import become_writer
from housekeeping.stores.postgres.hold_ledger import place
from housekeeping.stores.postgres.shard_ledger import ShardClaims, ShardLedger
from housekeeping.stores.postgres.split_ledger import (
    SplitLedger,
    standing_of,
)
from housekeeping.stores.postgres.window_ledger import try_fence
from tests.integration.database import Database
from tests.integration.stores.postgres.splitting import (
    PACE,
    RUN,
    Connect,
    claim,
    claimed,
    commit_window,
    cut,
    record,
)


def test_eight_claimants_racing_for_every_range_get_each_once(
    connections: Connect, owner: Connection, facts: TableFacts
) -> None:
    for _ in range(10):
        writer = become_writer(owner, facts, RUN, PACE)
        assert cut(owner, facts, SplitLedger(RUN, facts.label, writer.ledger.fence))
        racers = [connections() for _ in range(8)]
        start = Barrier(8)

        def race(
            number: int, racers: list[Connection] = racers, start: Barrier = start
        ) -> list[int]:
            start.wait()
            found = []
            while (shard := claim(racers[number], f"racer{number}")) is not None:
                found.append(shard.number)
            return found

        with ThreadPoolExecutor(8) as threads:
            got = [number for each in threads.map(race, range(8)) for number in each]
        for racer in racers:
            racer.close()

        assert len(got) == len(set(got)) == 4


def test_two_who_take_over_the_same_dead_workers_ranges_get_each_once(
    connections: Connect, owner: Connection, split: SplitLedger
) -> None:
    for _ in range(4):
        claimed(owner, "dead")
    heirs = [connections(), connections()]
    start = Barrier(2)

    def inherit(number: int) -> list[int]:
        start.wait()
        found = []
        while (shard := claim(heirs[number], f"heir{number}", gone=("dead",))) is not None:
            assert shard.claim == 2
            found.append(shard.number)
        return found

    with ThreadPoolExecutor(2) as threads:
        got = [number for each in threads.map(inherit, range(2)) for number in each]

    assert sorted(got) == [1, 2, 3, 4]


def test_a_worker_whose_range_was_taken_over_commits_nothing_in_it(
    connections: Connect, owner: Connection, split: SplitLedger, facts: TableFacts
) -> None:
    zombie, heir = connections(), connections()
    lost = claimed(zombie, "zombie")
    assert commit_window(zombie, facts, lost, done_to=4)

    taken = claimed(heir, "heir", gone=("zombie",))
    while taken.number != lost.number:  # free ranges go first
        taken = claimed(heir, "heir", gone=("zombie",))

    assert (taken.done_to, taken.last_window) == (4, lost.last_window + 1)
    with pytest.raises(ShardTaken, match="was taken over"):
        commit_window(zombie, facts, lost, done_to=8)
    assert commit_window(heir, facts, taken, done_to=8)
    with guarded(owner, PACE):
        assert standing_of(owner, RUN).rows == 14


def test_a_range_with_a_window_under_way_is_not_taken_over(
    connections: Connect, owner: Connection, split: SplitLedger, facts: TableFacts
) -> None:
    slow, heir = connections(), connections()
    shards = [claimed(slow, "slow") for _ in range(4)]
    ledger = ShardLedger(RUN, facts.label, facts.oid, shards[2])

    with guarded(slow, PACE):
        assert ledger.enter(slow)
        got = []
        while (shard := claim(heir, "heir", gone=("slow",))) is not None:
            got.append(shard.number)
        record(ledger, slow, shards[2].last_window + 1, 25, 7)

    assert got == [1, 2, 4]
    late = claimed(heir, "heir", gone=("slow",))
    assert (late.number, late.done_to) == (3, 25)


def test_windows_of_two_ranges_are_under_way_at_once_but_never_two_of_one(
    connections: Connect, owner: Connection, split: SplitLedger, facts: TableFacts
) -> None:
    one, two = connections(), connections()
    first, second = claimed(one, "one"), claimed(two, "two")

    with guarded(one, PACE):
        assert ShardLedger(RUN, facts.label, facts.oid, first).enter(one)
        assert commit_window(two, facts, second, done_to=15)
        assert not commit_window(two, facts, first, done_to=5)


def test_an_ordinary_batch_and_a_range_exclude_each_other(
    connections: Connect, owner: Connection, split: SplitLedger, facts: TableFacts
) -> None:
    worker, other = connections(), connections()
    shard = claimed(worker, "worker")

    with guarded(other, PACE):
        assert try_fence(other, facts.oid)
        assert not commit_window(worker, facts, shard, done_to=5)
    with guarded(worker, PACE):
        assert ShardLedger(RUN, facts.label, facts.oid, shard).enter(worker)
        with guarded(other, PACE):
            assert not try_fence(other, facts.oid)


def test_a_newer_run_fences_every_worker_of_an_older_one_off(
    connections: Connect, owner: Connection, split: SplitLedger, facts: TableFacts
) -> None:
    worker, newer = connections(), connections()
    shard = claimed(worker, "worker")

    become_writer(newer, facts, uuid4(), PACE)

    with pytest.raises(LeaseTaken):
        commit_window(worker, facts, shard, done_to=5)
    assert claim(worker, "worker") is None


def test_a_newer_run_waits_for_windows_under_way_and_no_new_one_slips_in(
    connections: Connect, owner: Connection, split: SplitLedger, facts: TableFacts, events: Database
) -> None:
    one, two, newer = connections(), connections(), connections()
    first, second = claimed(one, "one"), claimed(two, "two")

    with ThreadPoolExecutor(1) as threads, guarded(one, PACE):
        ledger = ShardLedger(RUN, facts.label, facts.oid, first)
        assert ledger.enter(one)
        fencing = threads.submit(become_writer, newer, facts, uuid4(), PACE)
        events.wait_until_we_wait_for_a_lock()
        assert not commit_window(two, facts, second, done_to=15)
        record(ledger, one, first.last_window + 1, 5, 7)
        one.commit()
        fencing.result(10)

    with pytest.raises(LeaseTaken):
        commit_window(two, facts, second, done_to=15)


def test_a_range_left_in_the_middle_goes_on_there(
    owner: Connection, split: SplitLedger, facts: TableFacts
) -> None:
    shard = claimed(owner, "first")
    commit_window(owner, facts, shard, done_to=6)
    with guarded(owner, PACE):
        ShardClaims(RUN, "first", "same").release(owner, shard)

    again = claimed(owner, "second")

    assert (again.number, again.done_to, again.upper) == (1, 6, 10)
    with guarded(owner, PACE):
        ShardClaims(RUN, "first", "same").finish(owner, shard)  # too late: it is somebody else's
        assert standing_of(owner, RUN).unfinished == 4


def test_a_hold_waits_for_windows_under_way_and_no_new_one_slips_in(
    connections: Connect, owner: Connection, split: SplitLedger, facts: TableFacts, events: Database
) -> None:
    worker, guardian = connections(), connections()
    shard = claimed(worker, "worker")
    ledger = ShardLedger(RUN, facts.label, facts.oid, shard)

    def hold() -> None:
        with guarded(guardian, PACE):
            place(guardian, "public.events", "true", "audit", "judge@here")

    with ThreadPoolExecutor(1) as threads, guarded(worker, PACE):
        assert ledger.enter(worker)
        placing = threads.submit(hold)
        events.wait_until_we_wait_for_a_lock()
        assert not commit_window(owner, facts, claimed(owner, "owner"), done_to=15)
        record(ledger, worker, shard.last_window + 1, 5, 7)
        worker.commit()
        placing.result(10)
