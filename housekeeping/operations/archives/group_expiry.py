"""A month of one source goes: looked at as a whole, exported as a whole, dropped table by table."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from housekeeping.engine.pacing import Budget, Rest
from housekeeping.engine.run import Request, Surroundings
from housekeeping.engine.throttling import Hours
from housekeeping.operations.archives.dated_groups import Group
from housekeeping.operations.archives.export import (
    Exported,
    TableExport,
    TextUnreadable,
    outlasting,
)
from housekeeping.policies.archives import ArchiveExpiryPolicy
from housekeeping.policies.errors import ExportDamaged, HousekeepingError
from housekeeping.policies.events import WindowCommitted, WindowPassed
from housekeeping.policies.result import StopReason
from housekeeping.stores.files.exports import Exports
from housekeeping.stores.postgres.archives.dropping import (
    Busy,
    Dropping,
    Held,
    Kept,
    counting,
    require_complete,
)
from housekeeping.stores.postgres.archives.held import held_by
from housekeeping.stores.postgres.archives.known import ArchivedTable, dependents
from housekeeping.stores.postgres.archives.rows import Fingerprint, fingerprint
from housekeeping.stores.postgres.conditions import Condition, condition_of, sentence
from housekeeping.stores.postgres.connection import guarded
from housekeeping.stores.postgres.window_ledger import WindowLedger

_log = logging.getLogger("housekeeping.archives")
# A reader of a dated table is a report that ends; 31 s in all before the table is left for next time.
_PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)


class Leaving(Exception):
    """The run ends before its work is done."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


@dataclass
class Tally:
    """How far a run has come; what it dropped is in the ledger."""

    number: int = 0
    """of the last window"""
    dropped: int = 0
    estimate: int = 0
    """tables that should go"""
    incomplete: int = 0
    left_behind: int = 0
    holds: list[str] = field(default_factory=list)
    kept: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def keep(self, table: ArchivedTable, why: str, *, incomplete: bool = False) -> None:
        """Tell of a table that should have gone and stayed. Its rows count, an empty one as one."""
        self.incomplete += incomplete
        self.left_behind += max(1, table.rows)
        self.leave(table, why)
        self.warnings.append(f"{table.relation} stays: {why}")

    def leave(self, table: ArchivedTable, why: str) -> None:
        """Tell of a table that stayed."""
        entry = {"table": table.relation, "period": table.period, "done": "kept"}
        self.kept.append({**entry, "rows": table.rows, "why": why})


@dataclass
class GroupExpiry:
    """Expires the months of one source, under its lease and its fence."""

    connection: Connection
    policy: ArchiveExpiryPolicy
    request: Request
    around: Surroundings
    exports: Exports | None
    ledger: WindowLedger
    fence_oid: int
    objection: Callable[[], StopReason | None]
    budget: Budget
    hours: Hours
    tally: Tally
    _at: ArchivedTable | None = None
    """what is worked on now"""
    _gone: set[str] = field(default_factory=set)

    def expire(self, group: Group) -> None:
        """Export and drop a month's tables, or tell why they stay.

        Raises Leaving when the run has to end, ExportUnreachable when the place of exports fails.
        """
        self._watch()
        held: dict[str, Fingerprint] = {}
        try:
            for table in group.tables:
                self._at = table
                counted = len(group.tables) > 1 and self.exports is None
                self._tried(table, partial(self._require_sound, table, counted=counted))
            if self.exports is not None:
                held = self._export(group)
            for table in group.tables:
                self._at = table
                self._drop(group, table, held.get(table.relation))
        except Held as hold:
            self._at = hold.table
            self._leave_held(group, hold.why)
        except Kept as kept:
            self._keep(group, kept.why, incomplete=True)
        except (ExportDamaged, TextUnreadable) as unexported:
            self._keep(group, str(unexported), incomplete=True)
        except _StillBusy as busy:
            self._keep(group, busy.why, incomplete=False)

    def _watch(self) -> None:
        reason = self._reason_to_leave()
        if reason is None and (closed := self.hours.closed()) is not None:
            self.tally.warnings.append(closed)
            reason = StopReason.TIME_BUDGET
        if reason is not None:
            raise Leaving(reason)

    def _reason_to_leave(self) -> StopReason | None:
        return self.objection() or self.budget.spent(self.tally.dropped)

    def _objected(self) -> object:
        """Answer the thread that watches a statement: an error raised in there would be lost. What
        ends the statement here is asked again, and raised, in the run's own thread.
        """
        try:
            return self._reason_to_leave() or self.hours.closed()
        except HousekeepingError as error:
            return error.message

    def _require_sound(self, table: ArchivedTable, *, counted: bool) -> None:
        """Refuse before anything of the group goes: half a month helps nobody."""
        if (fault := table.fault()) is not None:
            raise Kept(fault)
        with guarded(self.connection, counting(self.policy.pace), reading=True, any_plan=True):
            if depending := dependents(self.connection, table.oid):
                raise Kept(f"it is depended on by {', '.join(depending)}")
            if (hold := held_by(self.connection, self.policy, table)) is not None:
                raise Held(hold, table)
            if counted:
                require_complete(table.rows, fingerprint(self.connection, table.identifier))

    def _export(self, group: Group) -> dict[str, Fingerprint]:
        assert self.exports is not None
        export = TableExport(
            self.connection,
            self.policy,
            self.exports,
            str(self.request.run_id),
            self._watch,
            self._objected,
        )
        held: dict[str, Fingerprint] = {}
        children: list[str] = []
        for table in group.tables:
            self._at = table
            names = tuple(sorted(children)) if table is group.main else ()
            made = self._exported(export, table, names)
            self.tally.number += 1
            export.note(table, made, self.ledger, self.tally.number)
            held[table.relation] = made.held
            children.append(made.name)
        return held

    def _exported(
        self, export: TableExport, table: ArchivedTable, children: tuple[str, ...]
    ) -> Exported:
        begun = self.around.clock.monotonic()
        try:
            made: Exported = self._tried(table, partial(export.make, table.exportable, children))
        except Leaving as leaving:
            if leaving.reason is StopReason.TIME_BUDGET:
                seconds = self.around.clock.monotonic() - begun
                self.tally.warnings.append(f"{table.relation} stays: {outlasting(seconds)}")
            raise
        return made

    def _drop(self, group: Group, table: ArchivedTable, expected: Fingerprint | None) -> None:
        dropping = Dropping(
            self.connection,
            self.policy,
            self.ledger,
            self.fence_oid,
            self._objected,
            tuple(each for each in group.tables if each.relation not in self._gone),
        )
        begun = self.around.clock.monotonic()
        number = self.tally.number + 1
        self._tried(table, partial(dropping.drop, table, expected, number))
        self._gone.add(table.relation)
        self.tally.number, self.tally.dropped = number, self.tally.dropped + 1
        self.around.events.publish(
            WindowCommitted(
                **self._who,
                rows=1,
                seconds=round(self.around.clock.monotonic() - begun, 4),
                done=self.tally.dropped,
                estimate=max(self.tally.estimate, self.tally.dropped),
                percent=min(99, 100 * self.tally.dropped // max(1, self.tally.estimate)),
            )
        )

    def _tried(self, table: ArchivedTable, work: Callable[[], Any]) -> Any:
        """Do work that a lock may keep from being done, again after ever longer pauses."""
        why = ""
        for pause in (*_PAUSES, None):
            try:
                return work()
            except Busy:
                why = f"another run is at work on {table.main_source}"
            except DBAPIError as error:
                if condition_of(error) not in (Condition.CONTENDED, Condition.TOO_SLOW):
                    raise
                why = f"another session holds it: {sentence(error)}"
            self._watch()
            if pause is not None:
                _log.info("%s: %s; trying again in %s s", table.relation, why, pause)
                Rest(1.0, self.around.clock, self.objection).pause(pause)
                self._watch()
        raise _StillBusy(why)

    def _leave_held(self, group: Group, why: str) -> None:
        """Tell of a month a hold keeps. It is no fault: it is what was asked for."""
        at = self._at or group.main
        for table in group.tables:
            if table.relation not in self._gone:
                told = why if table is at else f"{at.relation}, which goes with it, is held"
                self.tally.leave(table, told)
        self.tally.holds.append(f"{at.relation}: {why}")

    def _keep(self, group: Group, why: str, *, incomplete: bool) -> None:
        at = self._at or group.main
        for table in group.tables:
            if table.relation not in self._gone:
                told = why if table is at else f"{at.relation}, which goes with it, stays"
                self.tally.keep(table, told, incomplete=incomplete and table is at)
        self.around.events.publish(
            WindowPassed(**self._who, window=at.relation, cause=why, rows=at.rows)
        )

    @property
    def _who(self) -> dict[str, str]:
        return {
            "operation": self.policy.operation,
            "policy": self.policy.name,
            "run_id": str(self.request.run_id),
        }


class _StillBusy(Exception):
    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why
