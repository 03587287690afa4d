"""The rebuilds of a run: worst first, one at a time, each only when nothing stands in its way."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection

from housekeeping.engine.upkeep.entries import Entry, Tally
from housekeeping.engine.upkeep.needs import Verdict
from housekeeping.engine.upkeep.steps import Steps
from housekeeping.engine.upkeep.surveying import Surveyed, with_verdicts
from housekeeping.policies.maintenance import MaintenancePolicy, When
from housekeeping.policies.pace import Pace
from housekeeping.stores.postgres.concurrent_builds import builds_refused
from housekeeping.stores.postgres.connection import guarded
from housekeeping.stores.postgres.upkeep.density import measured_bloat, measuring_schema
from housekeeping.stores.postgres.upkeep.headroom import lacking
from housekeeping.stores.postgres.upkeep.horizon import old_transaction
from housekeeping.stores.postgres.upkeep.indexes import IndexState, indexes_of
from housekeeping.stores.postgres.upkeep.rebuilding import Rebuilder, anybody_builds
from housekeeping.stores.postgres.upkeep.stepping import Ending, StepOutcome
from housekeeping.stores.postgres.upkeep.vacuuming import lock_holder


@dataclass
class RebuildPhase:
    """Rebuilds what is bloated."""

    connection: Connection
    policy: MaintenancePolicy
    steps: Steps
    tally: Tally
    looking: Pace
    _measures_in: str | None = field(default=None, init=False)

    def run(self, tables: Sequence[Surveyed]) -> None:
        """Rebuild, worst first, by the statistics as they are after VACUUM and ANALYZE."""
        with guarded(self.connection, self.looking, reading=True, any_plan=True):
            self._measures_in = measuring_schema(self.connection)
            fresh = with_verdicts(self.connection, tables, self.policy)
        rebuilt = 0
        for table, verdict in candidates(fresh):
            entry = self.tally.entries[table.state.oid]
            if not self._is_bloated(entry, verdict):
                continue
            if self._capped(rebuilt):
                self._leave(entry, verdict)
                continue
            self.steps.ask()
            rebuilt += self._rebuild(entry, verdict)

    def _capped(self, rebuilt: int) -> bool:
        forced = self.policy.reindex is When.ALWAYS
        return not forced and rebuilt >= self.policy.reindex_limits.max_indexes

    def _leave(self, entry: Entry, verdict: Verdict) -> None:
        assert verdict.need is not None
        told = f"a run rebuilds at most {self.policy.reindex_limits.max_indexes}; the next goes on"
        entry.add(verdict.need, Ending.SKIPPED.value, told, bloat_before=_rounded(verdict.bloat))
        self.tally.capped = True

    def _is_bloated(self, entry: Entry, verdict: Verdict) -> bool:
        """Measure what the statistics only estimate, where that can be done."""
        assert verdict.need is not None
        if self._measures_in is None or self.policy.reindex is When.ALWAYS:
            return True
        self.steps.ask()
        stepping = self.steps.stepping(f"measure {verdict.index.label}")
        measured = measured_bloat(stepping, self._measures_in, verdict.index)
        limit = self.policy.reindex_limits.bloat_share
        if measured is None or measured >= limit:
            return True
        told = f"measured: {measured:.0%} < {limit:.0%}"
        entry.add(verdict.need, "not needed", told, bloat_before=_rounded(measured))
        return False

    def _rebuild(self, entry: Entry, verdict: Verdict) -> bool:
        assert verdict.need is not None
        index, need = verdict.index, verdict.need
        if (told := self._in_the_way(index)) is not None:
            self.steps.took(entry, need, StepOutcome(Ending.SKIPPED, told))
            return False
        stepping = self.steps.stepping(f"reindex {index.label}")
        rebuilder = Rebuilder(
            stepping, self.connection, self.steps.request.run_id, self.steps.around.clock.sleep
        )
        outcome = rebuilder.rebuild(index)
        after = self._now(index) if outcome.ending is Ending.DONE else None
        self.steps.took(
            entry,
            need,
            outcome,
            bloat_before=_rounded(verdict.bloat),
            bloat_after=_rounded(after.bloat_share()) if after else None,
            size_before=index.bytes,
            size_after=after.bytes if after else None,
        )
        return outcome.ending is Ending.DONE

    def _in_the_way(self, index: IndexState) -> str | None:
        """Say what would make a rebuild wait, fail, or fill the disk; None when nothing would."""
        limits, patience = self.policy.reindex_limits, self.policy.old_transaction
        with guarded(self.connection, self.looking, reading=True, any_plan=True):
            old = old_transaction(self.connection, patience)
            needed = int(index.bytes * limits.headroom)
            room = lacking(self.connection, index.oid, needed, limits.disk_size)
        if (refused := builds_refused(self.connection)) is not None:
            return refused
        if old is not None:
            return f"it would wait for {old}"
        return room or anybody_builds(self.connection) or self._locked(index)

    def _locked(self, index: IndexState) -> str | None:
        return lock_holder(self.connection, index.table_oid)

    def _now(self, index: IndexState) -> IndexState | None:
        with guarded(self.connection, self.looking, reading=True, any_plan=True):
            found = indexes_of(self.connection, [index.table_oid])
        # A rebuilt index has a new oid and the old name.
        return next((each for each in found if each.name == index.name), None)


def candidates(tables: Sequence[Surveyed]) -> list[tuple[Surveyed, Verdict]]:
    """Return the indexes to rebuild, those that waste most first."""
    found = [(table, v) for table in tables for v in table.verdicts if v.need is not None]
    return sorted(found, key=lambda each: -each[1].index.bytes * (each[1].bloat or 0))


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 3)
