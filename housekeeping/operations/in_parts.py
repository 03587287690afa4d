"""A table whole parts of which may go: a partitioned one, or a hypertable."""

from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from housekeeping.engine.conducting import Begun
from housekeeping.engine.purging import Tally
from housekeeping.engine.reporting import RunReport
from housekeeping.operations.chunks import ChunkPurge, LookedAtChunks, look_at_chunks
from housekeeping.operations.looking import Looked, look
from housekeeping.operations.partition_steps import DETACHED, DROPPED, Steps
from housekeeping.operations.partitioned import PartitionedPurge, WalkLeaf
from housekeeping.policies.result import StopReason
from housekeeping.stores.postgres.connection import guarded
from housekeeping.stores.postgres.detached_ledger import due_partitions
from housekeeping.stores.postgres.preflight import Target


@dataclass(frozen=True)
class Parts:
    """A table in parts, and the run that is on it."""

    connection: Connection
    target: Target
    cutoffs: Mapping[str, datetime]
    limited: bool
    """at most so many rows may go"""

    def look(self) -> Looked | LookedAtChunks:
        """Say what a run would do; in a reading transaction. Raises what a run would raise."""
        if self.target.chunks is not None:
            return self._chunks()
        return self._partitions()

    def purge(self, steps: Steps, report: RunReport, begun: Begun, walk: WalkLeaf) -> StopReason:
        """Do it; `walk` clears one leaf."""

        def started(looked: Looked | LookedAtChunks) -> None:
            report.started(self.target.facts.label, looked.plan, resumed=begun.resumed)
            steps.warnings += looked.warnings

        if self.target.chunks is not None:
            with self._reading():
                chunked = self._chunks()
            started(chunked)
            return ChunkPurge(steps, self.target.chunks).run(chunked.plan.chunks)
        return PartitionedPurge(steps, self._look_apart, started).run(walk)

    def rehearse(self, tally: Tally) -> Looked | LookedAtChunks:
        """Look, and count what would go whole; in a reading transaction."""
        looked, policy = self.look(), self.target.policy
        rows = sum(part.rows for part in looked.whole)
        tally.rows += rows
        tally.counts += Counter({policy.rules[0].reason: rows})
        if isinstance(looked, LookedAtChunks):
            tally.counts[DROPPED] = len(looked.whole)
            return looked
        tally.counts[DETACHED] = len(looked.whole)
        if policy.partitions.then == "drop" and not looked.left_alone:
            grace = policy.partitions.grace
            due = due_partitions(self.connection, self.target.facts.label, grace)
            tally.counts[DROPPED] = len(due)
        return looked

    def _look_apart(self) -> Looked:
        with self._reading():
            return self._partitions()

    def _reading(self) -> AbstractContextManager[None]:
        return guarded(self.connection, self.target.policy.pace, reading=True, any_plan=True)

    def _partitions(self) -> Looked:
        return look(self.connection, self.target, self.cutoffs, limited=self.limited)

    def _chunks(self) -> LookedAtChunks:
        return look_at_chunks(self.connection, self.target, self.cutoffs, limited=self.limited)
