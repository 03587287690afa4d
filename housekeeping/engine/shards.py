"""One worker on a split run: claims a range, clears it, claims the next, until none is left."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from hashlib import sha256
from itertools import pairwise
from uuid import UUID, uuid4

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from housekeeping.engine.planning import HeapPlan
from housekeeping.engine.purging import PurgeLoop, Tally, Windows
from housekeeping.engine.run import Surroundings
from housekeeping.engine.walks import BlockWalk
from housekeeping.policies.errors import ShardTaken, StoreUnreachable
from housekeeping.policies.pace import Pace
from housekeeping.policies.policy import Policy
from housekeeping.policies.result import StopReason
from housekeeping.stores.postgres.connection import guarded
from housekeeping.stores.postgres.shard_ledger import Shard, ShardClaims, ShardLedger
from housekeeping.stores.redis.lease import Lease

_log = logging.getLogger("housekeeping.shards")

SHARDS_PER_WORKER = 8  # the last ranges are short, so nobody waits long for the slowest worker
LEAST_BLOCKS = 64  # of a range
CLAIM_PACE = Pace(lock_timeout=timedelta(seconds=5))


def ranges_of(blocks: int, workers: int) -> list[tuple[int, int]]:
    """Cut a heap into disjoint ranges, `(first, end)` each, that together are all of it."""
    count = max(1, min(SHARDS_PER_WORKER * workers, blocks // LEAST_BLOCKS))
    cuts = [blocks * number // count for number in range(count + 1)]
    return list(pairwise(cuts))


def digest_of(policy: Policy) -> str:
    """Return what tells a policy from another of the same name, without its address and pace.

    While a new configuration is rolled out workers have different policies of one name; only those
    who have the same one may share a run.
    """
    said = repr(replace(policy, pace=Pace()))  # the address is not part of a policy's repr
    return sha256(said.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Membership:
    """A worker's sign of life, and that of the others."""

    worker: str
    lease: Lease
    around: Surroundings
    run_id: UUID
    seconds: float

    def alive(self, worker: str) -> bool:
        """Whether another worker gives signs of life; while Redis is away nobody is declared dead."""
        sign = _sign_of(worker, self.around, self.run_id, self.seconds)
        try:
            return sign.holder() is not None
        except StoreUnreachable:
            return True


@contextmanager
def membership(run_id: UUID, run_by: str, pace: Pace, around: Surroundings) -> Iterator[Membership]:
    """Give a sign of life for a block, under a name nobody had before.

    Raises StoreUnreachable when Redis does not answer.
    """
    worker, seconds = f"{run_by}/{uuid4().hex[:12]}", pace.lease_ttl.total_seconds()
    lease = _sign_of(worker, around, run_id, seconds)
    lease.acquire()
    try:
        yield Membership(worker, lease, around, run_id, seconds)
    finally:
        lease.release()


def _sign_of(worker: str, around: Surroundings, run_id: UUID, seconds: float) -> Lease:
    return Lease(around.redis, f"worker {worker}", str(run_id), seconds)


@dataclass
class ShardWorker:
    """Works on the ranges of one run."""

    connection: Connection
    relation: str
    oid: int
    plan: HeapPlan
    claims: ShardClaims
    members: Membership
    store: Callable[[ShardLedger], Windows]
    loop: Callable[[Windows], PurgeLoop]
    tally: Tally
    ranges_done: int = 0

    def work(self) -> StopReason | None:
        """Clear ranges until there is none to claim; return a reason to leave before that.

        Raises what PurgeLoop raises. A range is then left to the others, as far as it was done.
        """
        done: Shard | None = None
        while (shard := self._claim(done)) is not None:
            reason, done = self._clear(shard)
            if reason is not None:
                return reason
        return None

    def _claim(self, done: Shard | None) -> Shard | None:
        """Claim the next range, and say in the same transaction that the last one is done."""
        claims = self.claims
        with guarded(self.connection, CLAIM_PACE, any_plan=True):
            if done is not None:
                claims.finish(self.connection, done)
            if (shard := claims.claim(self.connection)) is not None:
                return shard
            others = claims.other_claimants(self.connection)
        gone = [worker for worker in others if not self.members.alive(worker)]
        if not gone:
            return None
        with guarded(self.connection, CLAIM_PACE, any_plan=True):
            shard = claims.claim(self.connection, gone)
        if shard is not None:
            _log.warning(
                "range %d of %s is taken over from block %d on: its worker is gone",
                shard.number,
                self.relation,
                shard.done_to,
            )
        return shard

    def _clear(self, shard: Shard) -> tuple[StopReason | None, Shard | None]:
        """Clear one range; return why to leave, and the range if it is done."""
        self.tally.number = shard.last_window
        ledger = ShardLedger(self.claims.run_id, self.relation, self.oid, shard)
        loop = self.loop(self.store(ledger))
        walk = BlockWalk(self.plan, shard.done_to, shard.upper)
        try:
            reason = loop.run([walk])
        except ShardTaken as taken:
            _log.warning("%s", taken.message)
            return None, None
        except BaseException:
            # The others need not wait until we count as gone; where the connection is, they will.
            with suppress(SQLAlchemyError):
                self._release(shard)
            raise
        if reason is StopReason.EXHAUSTED:
            self.ranges_done += 1
            return None, shard
        self._release(shard)
        return reason, None

    def _release(self, shard: Shard) -> None:
        with guarded(self.connection, CLAIM_PACE, any_plan=True):
            self.claims.release(self.connection, shard)
