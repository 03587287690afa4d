"""A table whole parts of which may go: a partitioned one, or a hypertable."""

from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from housekeeping.engine.conducting import Begun
from housekeeping.engine.purging import Tally
from housekeeping.engine.reporting import RunReport
from housekeeping.operations.looking import Looked, look
from housekeeping.operations.partitions.chunks import ChunkPurge, LookedAtChunks, look_at_chunks
from housekeeping.operations.partitions.exporting import PartitionExport, left_to_another
from housekeeping.operations.partitions.partitioned import PartitionedPurge, WalkLeaf
from housekeeping.operations.partitions.steps import DETACHED, DROPPED, EXPORTED, Steps
from housekeeping.policies.result import StopReason
from housekeeping.stores.files.exports import Exports
from housekeeping.stores.postgres.conditions import Condition, condition_of
from housekeeping.stores.postgres.connection import guarded
from housekeeping.stores.postgres.detached_ledger import Detached, due_partitions
from housekeeping.stores.postgres.held_tables import held_whole
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
        self._exports()  # refused like anything else: before a run has begun
        return self._partitions()

    def _exports(self) -> Exports | None:
        to = self.target.policy.partitions.export
        return None if to is None else Exports(to)

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
        exports = self._exports()
        export = None if exports is None else PartitionExport(steps, exports)
        return PartitionedPurge(steps, self._look_apart, started, export).run(walk)

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
            kept = [told for detached in due if (told := self._kept(detached)) is not None]
            going = len(due) - len(kept)
            tally.counts[DROPPED] = going
            exports = self._exports()
            if exports is not None:
                tally.counts[EXPORTED] = going
            plan = replace(
                looked.plan,
                warnings=(*looked.plan.warnings, *kept),
                retiring=_retiring(going, exports),
            )
            return replace(looked, plan=plan)
        return looked

    def _kept(self, detached: Detached) -> str | None:
        """Say which hold or policy keeps a detached partition, as the run would that leaves it."""
        if (another := left_to_another(detached, self.target.policy)) is not None:
            return f"{detached.label}: {another}"
        root = self.target.facts.oid
        try:
            held = held_whole(self.connection, self.target.policy, detached.oid, [root])
        except DBAPIError as error:
            if condition_of(error) is not Condition.TOO_SLOW:
                raise
            held = "to look whether a hold keeps it took too long"
        return None if held is None else f"{detached.label}: {held}"

    def _look_apart(self) -> Looked:
        with self._reading():
            return self._partitions()

    def _reading(self) -> AbstractContextManager[None]:
        return guarded(self.connection, self.target.policy.pace, reading=True, any_plan=True)

    def _partitions(self) -> Looked:
        return look(self.connection, self.target, self.cutoffs, limited=self.limited)

    def _chunks(self) -> LookedAtChunks:
        return look_at_chunks(self.connection, self.target, self.cutoffs, limited=self.limited)


def _retiring(going: int, exports: Exports | None) -> str | None:
    if not going:
        return None
    exported = "" if exports is None else f"exported to {exports.place.shown}, then "
    return f"{going} detached ones whose grace is over would be {exported}dropped"
