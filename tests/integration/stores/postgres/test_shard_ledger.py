"""Claims on ranges: one worker a range, and a worker that lost one can't commit in it any more."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from threading import Barrier
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection

from housekeeping.engine.shards import ranges_of
from housekeeping.policies.errors import LeaseTaken, ShardTaken
from housekeeping.policies.pace import Pace
from housekeeping.policies.purge import TableName
from housekeeping.stores.postgres.catalog import TableFacts, describe_table, find_table
from housekeeping.stores.postgres.connection import connect, guarded
from housekeeping.stores.postgres.fencing import become_writer, fenced
from housekeeping.stores.postgres.ledger_schema import ensure_ledger
from housekeeping.stores.postgres.shard_ledger import Shard, ShardClaims, ShardLedger
from housekeeping.stores.postgres.split_ledger import (
    SplitLedger,
    close_split,
    find_split,
    standing_of,
)
from housekeeping.stores.postgres.window_ledger import try_fence
from tests.integration.database import Database

RUN = UUID("00000000-0000-0000-0000-000000000001")
NOW = datetime(2026, 3, 1, tzinfo=UTC)
PACE = Pace(lock_timeout=timedelta(seconds=5))
IMPATIENT = Pace(lock_timeout=timedelta(milliseconds=50))

Connect = Callable[[], Connection]


@pytest.fixture
def connections(events: Database) -> Iterator[Connect]:
    made: list[Connection] = []

    def make() -> Connection:
        made.append(connect(events.url, "hk:test"))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def owner(connections: Connect) -> Connection:
    connection = connections()
    ensure_ledger(connection)
    return connection


@pytest.fixture
def facts(owner: Connection) -> TableFacts:
    with owner.begin():
        oid = find_table(owner, TableName("events"))
        assert oid is not None
        return describe_table(owner, oid)


@pytest.fixture
def split(owner: Connection, facts: TableFacts) -> SplitLedger:
    """A run cut into four ranges of ten blocks."""
    writer = become_writer(owner, facts, RUN, PACE)
    ledger = SplitLedger(RUN, facts.label, writer.ledger.fence)
    assert cut(owner, facts, ledger)
    return ledger


def cut(
    connection: Connection, facts: TableFacts, ledger: SplitLedger, digest: str = "same"
) -> bool:
    with fenced(connection, facts, PACE):
        return ledger.write(
            connection,
            digest=digest,
            cutoffs={"expired": NOW},
            planned_at=NOW,
            filenode=facts.filenode,
            budget=timedelta(minutes=5),
            ranges=[(0, 10), (10, 20), (20, 30), (30, 40)],
        )


def claim(
    connection: Connection, worker: str, digest: str = "same", gone: tuple[str, ...] = ()
) -> Shard | None:
    with guarded(connection, PACE):
        return ShardClaims(RUN, worker, digest).claim(connection, gone)


def claimed(connection: Connection, worker: str, gone: tuple[str, ...] = ()) -> Shard:
    shard = claim(connection, worker, gone=gone)
    assert shard is not None
    return shard


def commit_window(
    connection: Connection, facts: TableFacts, shard: Shard, done_to: int, rows: int = 7
) -> bool:
    """Commit one window as WindowStore does; False when somebody else's is under way."""
    ledger = ShardLedger(RUN, facts.label, facts.oid, shard)
    with guarded(connection, IMPATIENT):
        if not ledger.enter(connection):
            return False
        record(ledger, connection, shard.last_window + 1, done_to, rows)
    return True


def record(
    ledger: ShardLedger, connection: Connection, number: int, done_to: int, rows: int
) -> None:
    ledger.record(
        connection,
        number=number,
        walk="heap",
        bounds=("(0,0)", f"({done_to},0)"),
        counts=Counter({"expired": rows}),
        rows=rows,
        done_to=str(done_to),
    )


def test_what_was_written_down_is_found_by_every_worker(
    owner: Connection, split: SplitLedger, facts: TableFacts
) -> None:
    with guarded(owner, PACE, reading=True):
        found = find_split(owner, RUN)
        nobodys = find_split(owner, uuid4())

    assert nobodys is None
    assert found is not None
    assert (found.relation, found.digest, found.blocks) == (facts.label, "same", 40)
    assert (found.cutoffs, found.planned_at) == ({"expired": NOW}, NOW)
    assert found.is_open
    assert timedelta(minutes=4) < found.time_left <= timedelta(minutes=5)


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


def test_another_attempt_of_the_same_run_leaves_its_workers_at_work(
    connections: Connect, owner: Connection, split: SplitLedger, facts: TableFacts
) -> None:
    worker, again = connections(), connections()
    shard = claimed(worker, "worker")

    writer = become_writer(again, facts, RUN, PACE)
    ledger = SplitLedger(RUN, facts.label, writer.ledger.fence)
    with fenced(again, facts, PACE):
        ledger.resume(again, "same", timedelta(minutes=9))

    assert commit_window(worker, facts, shard, done_to=5)
    with guarded(again, PACE):
        found = find_split(again, RUN)
    assert found is not None
    assert found.time_left > timedelta(minutes=8)


def test_an_attempt_under_another_policy_takes_every_range_back(
    connections: Connect, owner: Connection, split: SplitLedger, facts: TableFacts
) -> None:
    worker, again = connections(), connections()
    shard = claimed(worker, "worker")
    commit_window(worker, facts, shard, done_to=5)

    writer = become_writer(again, facts, RUN, PACE)
    with fenced(again, facts, PACE):
        SplitLedger(RUN, facts.label, writer.ledger.fence).resume(again, "new", PACE.time_budget)

    with pytest.raises(ShardTaken):
        commit_window(worker, facts, shard, done_to=8)
    assert claim(worker, "worker", digest="same") is None
    ours = claim(again, "again", digest="new")
    assert ours is not None
    assert (ours.number, ours.done_to) == (1, 5)


def test_an_older_attempt_can_not_cut_or_lengthen_the_run_again(
    connections: Connect, owner: Connection, split: SplitLedger, facts: TableFacts
) -> None:
    become_writer(connections(), facts, RUN, PACE)

    assert not cut(owner, facts, split)
    with fenced(owner, facts, PACE):
        assert not split.extend(owner, 50)
        assert standing_of(owner, RUN).blocks == 40


def test_the_blocks_behind_the_former_end_are_added_once(
    owner: Connection, split: SplitLedger, facts: TableFacts
) -> None:
    with fenced(owner, facts, PACE):
        assert split.extend(owner, 50)
        assert not split.extend(owner, 50)
        assert not split.extend(owner, 45)

    shards = [claimed(owner, "owner") for _ in range(5)]
    assert [(shard.lower, shard.upper) for shard in shards][-1] == (40, 50)


def test_after_the_end_of_the_run_no_window_is_committed(
    connections: Connect, owner: Connection, split: SplitLedger, facts: TableFacts
) -> None:
    worker = connections()
    shard = claimed(worker, "worker")

    with fenced(owner, facts, PACE):
        assert close_split(owner, RUN) == 1

    with pytest.raises(LeaseTaken):
        commit_window(worker, facts, shard, done_to=5)
    assert claim(worker, "worker") is None


def test_a_rewritten_table_is_cut_anew_and_the_old_ranges_are_given_up(
    connections: Connect, owner: Connection, split: SplitLedger, facts: TableFacts
) -> None:
    worker = connections()
    shard = claimed(worker, "worker")
    assert commit_window(worker, facts, shard, done_to=5)

    assert cut(owner, facts, split)

    with pytest.raises(ShardTaken):
        commit_window(worker, facts, shard, done_to=8)
    anew = claimed(worker, "worker")
    assert (anew.number, anew.lower) == (5, 0)
    assert anew.last_window > shard.last_window + 1


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


@pytest.mark.parametrize("blocks", [1, 63, 64, 128, 1_000, 4_711, 1_000_000])
@pytest.mark.parametrize("workers", [2, 3, 64])
def test_ranges_are_disjoint_and_together_the_whole_heap(blocks: int, workers: int) -> None:
    ranges = ranges_of(blocks, workers)

    assert [block for first, _ in ranges for block in [first]] == [
        0,
        *(end for _, end in ranges[:-1]),
    ]
    assert ranges[-1][1] == blocks
    assert all(first < end for first, end in ranges)
    assert len(ranges) <= 8 * workers


def test_a_ledger_reads_as_an_operator_would_read_it(
    events: Database, owner: Connection, split: SplitLedger, facts: TableFacts
) -> None:
    with closing(connect(events.url, "hk:test")) as worker:
        shard = claimed(worker, "alice@here/1")
        commit_window(worker, facts, shard, done_to=6)

    assert events.rows(
        "SELECT number, lower, upper, done_to, claimed_by, rows FROM housekeeping.shard"
        " WHERE run_id = %s AND claimed_by IS NOT NULL",
        str(RUN),
    ) == [(1, 0, 10, 6, "alice@here/1", 7)]
    assert events.one("SELECT workers FROM housekeeping.split") == ["alice@here/1"]
