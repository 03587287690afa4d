"""How a run is cut, taken up, lengthened and closed: by the attempt that has the fence alone."""

from contextlib import closing
from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import Connection

from housekeeping.engine.shards import ranges_of
from housekeeping.policies.errors import LeaseTaken, ShardTaken
from housekeeping.stores.postgres.catalog import TableFacts
from housekeeping.stores.postgres.connection import connect, guarded
from housekeeping.stores.postgres.fencing import become_writer, fenced
from housekeeping.stores.postgres.split_ledger import (
    SplitLedger,
    close_split,
    find_split,
    standing_of,
)
from tests.integration.database import Database
from tests.integration.stores.postgres.splitting import (
    NOW,
    PACE,
    RUN,
    Connect,
    claim,
    claimed,
    commit_window,
    cut,
)

OTHERS = {"done": NOW - timedelta(days=60)}


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


def test_another_attempt_of_the_same_run_leaves_its_workers_at_work(
    connections: Connect, owner: Connection, split: SplitLedger, facts: TableFacts
) -> None:
    worker, again = connections(), connections()
    shard = claimed(worker, "worker")

    writer = become_writer(again, facts, RUN, PACE)
    ledger = SplitLedger(RUN, facts.label, writer.ledger.fence)
    with fenced(again, facts, PACE):
        ledger.resume(again, "same", {"expired": NOW}, timedelta(minutes=9))

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
        ledger = SplitLedger(RUN, facts.label, writer.ledger.fence)
        ledger.resume(again, "new", OTHERS, PACE.time_budget)

    with pytest.raises(ShardTaken):
        commit_window(worker, facts, shard, done_to=8)
    assert claim(worker, "worker", digest="same") is None
    ours = claim(again, "again", digest="new")
    assert ours is not None
    assert (ours.number, ours.done_to) == (1, 5)
    with guarded(again, PACE):
        found = find_split(again, RUN)
    assert found is not None
    assert found.cutoffs == OTHERS


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
