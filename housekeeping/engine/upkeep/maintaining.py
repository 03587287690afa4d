"""The maintenance loop: leftovers, then VACUUM and ANALYZE, then rebuilds, then what had to wait."""

from dataclasses import dataclass, replace

from sqlalchemy import Connection

from housekeeping.engine.upkeep.entries import Entry, Tally
from housekeeping.engine.upkeep.needs import Need, analyze_need, dead_threshold, unneeded
from housekeeping.engine.upkeep.rebuild_phase import RebuildPhase
from housekeeping.engine.upkeep.steps import Steps
from housekeeping.engine.upkeep.surveying import Survey, Surveyed
from housekeeping.policies.maintenance import MaintenancePolicy
from housekeeping.policies.pace import Pace
from housekeeping.policies.result import StopReason
from housekeeping.stores.postgres.connection import guarded
from housekeeping.stores.postgres.upkeep.horizon import holders
from housekeeping.stores.postgres.upkeep.rebuilding import settle_intents
from housekeeping.stores.postgres.upkeep.stepping import Ending, StepOutcome, StepStopped
from housekeeping.stores.postgres.upkeep.vacuuming import (
    analyze,
    refresh_database_age,
    states_now,
    vacuum,
)

_LATER = (Ending.SKIPPED, Ending.YIELDED)


@dataclass
class MaintenanceLoop:
    """One run over the tables of a survey."""

    connection: Connection
    """for looking and for the ledger; steps have connections of their own"""
    policy: MaintenancePolicy
    survey: Survey
    steps: Steps
    tally: Tally
    looking: Pace

    def run(self) -> StopReason:
        """Do what is needed; return why it ended. Raises LeaseLost and what ends a connection."""
        try:
            self._work()
        except StepStopped as stopped:
            if isinstance(stopped.reason, StopReason):
                return stopped.reason
            if isinstance(stopped.reason, Exception):  # the lease is lost
                raise stopped.reason from None
            raise
        if self.tally.failures:
            return StopReason.ERROR
        if self.tally.counts["skipped"]:
            return StopReason.THROTTLED
        return StopReason.ROW_BUDGET if self.tally.capped else StopReason.EXHAUSTED

    def _work(self) -> None:
        self.steps.ask()
        self._settle_leftovers()
        waiting = [table for table in self.survey.tables if self._has_to_wait(table)]
        RebuildPhase(self.connection, self.policy, self.steps, self.tally, self.looking).run(
            [table for table in self.survey.tables if table.error is None]
        )
        for table in waiting:
            self._upkeep(table, last=True)
        if self.tally.counts["vacuumed"]:
            refresh_database_age(self.steps.stepping("age of the database"), self.connection)

    def _settle_leftovers(self) -> None:
        stepping = self.steps.stepping("leftovers of interrupted rebuilds")
        removed, told = settle_intents(self.connection, stepping)
        self.tally.counts["leftovers_removed"] += removed
        self.tally.warnings += told

    def _has_to_wait(self, table: Surveyed) -> bool:
        """Do a table's work; say whether its VACUUM is to be tried again at the end."""
        entry = self.tally.entries[table.state.oid]
        if table.error is not None:
            self.tally.fail(entry, table.error)
            return False
        if not table.needs and self.policy.tables:
            entry.note = f"nothing needed: {unneeded(table.state, self.policy)}"
        return self._upkeep(table, last=False)

    def _upkeep(self, table: Surveyed, *, last: bool) -> bool:
        entry = self.tally.entries[table.state.oid]
        vacuumed = False
        if table.vacuum is not None:
            self.steps.ask()
            outcome = self._vacuum(table, table.vacuum)
            if outcome.ending in _LATER and not last:
                told = f"{outcome.told}; tried again at the end"
                entry.add(
                    table.vacuum, outcome.ending.value, told, seconds=round(outcome.seconds, 3)
                )
                self.steps.told(entry, table.vacuum, outcome)
                return True
            self.steps.took(entry, table.vacuum, outcome)
            vacuumed = outcome.ending is Ending.DONE
        if (need := analyze_need(table.state, self.policy, vacuumed=vacuumed)) is not None:
            self.steps.ask()
            stepping = self.steps.stepping(f"analyze {table.state.label}")
            self.steps.took(entry, need, analyze(stepping, self.connection, table.state))
        return False

    def _vacuum(self, table: Surveyed, need: Need) -> StepOutcome:
        stepping = self.steps.stepping(f"vacuum {table.state.label}")
        outcome = vacuum(stepping, self.connection, table.state, freeze=need.freeze)
        if outcome.ending is not Ending.DONE:
            return outcome
        return self._held_back(table, need, outcome)

    def _held_back(self, table: Surveyed, need: Need, outcome: StepOutcome) -> StepOutcome:
        """Look whether what VACUUM was needed for is still there, and who keeps it."""
        now = states_now(self.connection, table.state)
        if not now:
            return outcome
        if need.freeze:
            kept = now[0].frozen_share >= self.policy.vacuum_limits.freeze_share
            what = f"its age is still {now[0].frozen_share:.0%}"
        else:
            kept = now[0].dead_rows > max(
                dead_threshold(table.state, self.policy), table.state.dead_rows // 2
            )
            what = f"{now[0].dead_rows:,} dead rows stay"
        if not kept:
            return outcome
        with guarded(self.connection, self.looking, reading=True, any_plan=True):
            found = holders(self.connection)
        if not found:
            return outcome
        told = f"{what}: {found[0]} holds the xmin horizon back"
        return replace(outcome, ending=Ending.SKIPPED, told=told)


def entries_of(survey: Survey) -> dict[int, Entry]:
    """Return an entry for each table of a survey."""
    return {table.state.oid: Entry(table) for table in survey.tables}
