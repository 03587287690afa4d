"""Put an archived month, or an exported partition, back into the table its rows came from.

It can be run again at any time: what is back already is passed over, nothing is overwritten.
"""

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from housekeeping.engine.conducting import Begun, Conduct, stopped_event
from housekeeping.engine.connecting import connected_for
from housekeeping.engine.outcomes import ended_by
from housekeeping.engine.pacing import Budget
from housekeeping.engine.reporting import RunReport
from housekeeping.engine.run import LeaseHeld, Request, Surroundings, leased
from housekeeping.engine.throttling import Hours, Waited, throttled
from housekeeping.operations.archives.restore_parts import Origin, Part, origin_of, parts_of
from housekeeping.operations.archives.restoring import Leaving, Restoring, bounded
from housekeeping.operations.archives.standing_back import StandingBack
from housekeeping.policies.archives import RestorePolicy
from housekeeping.policies.events import RunStarted
from housekeeping.policies.result import RunResult, StopReason
from housekeeping.stores.postgres.archives.foreseeing import foreseen
from housekeeping.stores.postgres.archives.putting_back import ALREADY_THERE, RESTORED
from housekeeping.stores.postgres.connection import guarded, place
from housekeeping.stores.postgres.cutoffs import database_now
from housekeeping.stores.postgres.ledger_schema import ensure_ledger
from housekeeping.stores.postgres.window_ledger import summary_of

OPERATION = "archives.restore"


def restore(policy: RestorePolicy, request: Request, around: Surroundings) -> RunResult:
    """Put back what `policy` names, or in a dry run tell what would come back.

    Raises RestoreRefused when it can't be, ExportDamaged and ExportUnreachable for a file that is
    not whole or not there, StoreUnreachable, and RunInterrupted for a lock at the very start.
    """
    with connected_for(policy, request) as connection:
        return _Restore(policy, request, around, connection).run()


@dataclass
class _Restore:
    policy: RestorePolicy
    request: Request
    around: Surroundings
    connection: Connection
    hours: Hours = field(init=False)
    parts: tuple[Part, ...] = ()
    origin: Origin = field(default_factory=Origin)
    restoring: Restoring | None = None
    waited: Waited = field(default_factory=Waited)
    begun_at: float = 0.0

    def run(self) -> RunResult:
        self.begun_at = self.around.clock.monotonic()
        if not self.request.dry_run:
            ensure_ledger(self.connection)
        with guarded(self.connection, self.policy.pace, reading=True, any_plan=True):
            self.hours = Hours(self.policy.pace, database_now(self.connection), self.around.clock)
            self.origin = origin_of(self.connection, self.policy)
        report = RunReport(self.policy, self.request, self.around.events)
        patience = StandingBack(
            self.connection, self.policy.pace, self.around.clock, self.waited,
            lambda cause: report.awaiting(cause, 0, 0.0),
        )  # fmt: skip
        self.parts = patience.read(self.origin.touched, self._parts)
        for part in self.parts:
            if part.exports is not None and part.manifest is not None:
                part.exports.check(part.manifest, lambda: None)  # before a row of it is believed
                self._require_room(part)
        if self.request.dry_run:
            return self._rehearsed()
        conduct = Conduct(
            self.policy, self.request, self.around, self._lease_of(self.parts[0]), self.connection
        )
        return conduct.run({}, self._attempt, lambda: self._result(StopReason.LOCKED, None))

    def _parts(self) -> tuple[Part, ...]:
        with guarded(self.connection, self.policy.pace, reading=True, any_plan=True):
            return parts_of(self.connection, self.policy, self.origin)

    def _require_room(self, part: Part) -> None:
        """Refuse before the first row goes back, where rows of a partition have nowhere to go."""
        if part.routes is None or part.routes.same_bounds:
            return
        assert part.exports is not None
        assert part.manifest is not None
        for rows in bounded(part.exports.rows(part.manifest), part.places):
            if not part.routes.take(self.connection, self.policy.pace, part.to.columns, rows):
                raise part.without_room()

    def _lease_of(self, part: Part) -> str:
        """Return the name of the lease every run on the source table takes."""
        return f"{place(self.policy.database_url)}/{part.to.facts.label}"

    def _attempt(self, begun: Begun) -> RunResult:
        reason, error = ended_by(lambda: self._under_leases(begun), self.policy, self.request)
        return self._result(reason, error)

    def _under_leases(self, begun: Begun) -> StopReason:
        """Hold the leases of child tables too: their own retention must not meet half of a month."""
        if (reason := begun.objection()) is not None:
            return reason
        policy, first = self.policy, self._lease_of(self.parts[0])
        with ExitStack() as leases:
            held = []
            for target in dict.fromkeys(self._lease_of(part) for part in self.parts):
                if target == first:
                    continue
                try:
                    held.append(
                        leases.enter_context(
                            leased(
                                target, policy.operation, policy.name, policy.pace, self.request,
                                self.around,
                            )
                        )
                    )  # fmt: skip
                except LeaseHeld:
                    return StopReason.LOCKED

            def objection() -> StopReason | None:
                for lease in held:
                    lease.check()
                return begun.objection()

            begun.record.settle_abandoned(self.connection)
            return self._put_back(objection)

    def _put_back(self, objection: Any) -> StopReason:
        clock, expected = self.around.clock, sum(part.rows for part in self.parts)
        self.around.events.publish(
            RunStarted(
                operation=self.policy.operation,
                policy=self.policy.name,
                run_id=str(self.request.run_id),
                table=self.parts[0].to.facts.label,
                walk=f"from {self.parts[0].relation}",
                estimate=expected,
                dry_run=False,
                resumed=False,
            )
        )
        budget = Budget(self.policy.pace, self.request.limit, clock)
        tables = [part.to.facts.oid for part in self.parts]
        report = RunReport(self.policy, self.request, self.around.events)
        with throttled(
            self.policy, self.around, self.connection, tables, self.hours, budget, objection,
            report, self.waited,
        ) as throttle:  # fmt: skip
            self.restoring = Restoring(
                self.connection, self.policy, self.request.run_id, objection, budget, clock,
                self.around.events, expected, throttle, self.waited, report,
            )  # fmt: skip
            try:
                for part in self.parts:
                    self.restoring.put_back_all(part)
            except Leaving as leaving:
                return leaving.reason
        return StopReason.EXHAUSTED

    def _result(self, reason: StopReason, error: str | None) -> RunResult:
        counts = self.restoring.counts if self.restoring else {}
        total: Counter[str] = Counter()
        for each in counts.values():
            total.update(each)
        summary = None
        if self.restoring is not None and not self.connection.closed:
            try:
                with guarded(self.connection, self.policy.pace, any_plan=True):
                    summary = summary_of(self.connection, self.request.run_id)
            except DBAPIError:
                summary = None  # the connection went away: what this process counted stands
        left = sum(total.values()) - total[RESTORED] - total[ALREADY_THERE]
        failed = reason is StopReason.ERROR
        return RunResult(
            operation=self.policy.operation,
            policy=self.policy.name,
            run_id=str(self.request.run_id),
            stop_reason=reason,
            total_key=self.policy.total_key,
            total=summary.rows if summary else total[RESTORED],
            details={key: total[key] for key in self.policy.detail_keys},
            batches=summary.windows if summary else 0,
            seconds=self.around.clock.monotonic() - self.begun_at,
            left_behind=left,
            warnings=(*self._warnings(), *((error,) if error and not failed else ())),
            error=error if failed else None,
            tables=tuple(self._entry(part, counts.get(part.relation)) for part in self.parts),
        )

    def _entry(self, part: Part, counts: Counter[str] | None) -> dict[str, Any]:
        entry: dict[str, Any] = {"table": part.relation, "into": part.to.facts.label}
        if counts is None:
            return {**entry, "done": "not begun", "rows": 0}
        stayed = {
            key: counts[key] for key in self.policy.detail_keys if key != RESTORED and counts[key]
        }
        return {**entry, "done": "put back", "rows": counts[RESTORED], **stayed}

    def _warnings(self) -> tuple[str, ...]:
        told = [*self.origin.warnings, *(w for part in self.parts for w in part.to.warnings)]
        if self.restoring is not None:
            told += [f"rows were refused: {refusal}" for refusal in self.restoring.refusals[:5]]
        return (*dict.fromkeys(told), *self.waited.warnings(), *self._takers())

    def _takers(self) -> tuple[str, ...]:
        """Warn of tasks that will take the rows again: their age is what it was."""
        labels = {name for part in self.parts for name in (part.to.facts.label, part.to.facts.name)}
        tasks = {task for table, task in self.policy.takers if table in labels}
        tasks -= self.around.control.paused()
        return tuple(
            f"{task} will take these rows again the next time it runs, as old as they are; "
            f"`housekeeping pause {task.removeprefix('tasks.')}` keeps them"
            for task in sorted(tasks)
        )

    def _foreseen(self, part: Part) -> Counter[str] | None:
        """Look up what of a dated table could come back; None for an export, read row by row."""
        if part.live is None:
            return None
        main = part.live.part_of is None  # others' parents may come back with them
        return foreseen(
            self.connection, part.to, part.live.identifier, self.policy.pace, parents=main
        )

    def _rehearsed(self) -> RunResult:
        entries = []
        total: Counter[str] = Counter()
        because = ["rows that a constraint or trigger refuses stay in the archive"]
        for part in self.parts:
            entry: dict[str, Any] = {"table": part.relation, "into": part.to.facts.label}
            counts = self._foreseen(part)
            if counts is None:
                counts = Counter({RESTORED: part.rows})
                because.append(f"rows of {part.relation} were not looked up in {entry['into']}")
            total.update(counts)
            stayed = {key: n for key, n in counts.items() if key != RESTORED and n}
            entries.append(
                {**entry, "done": "would be put back", "rows": counts[RESTORED], **stayed}
            )
        plan = {
            "walks": ["from its export" if self.origin.exported else "from its dated table"],
            "indexes": [],
            "would_restore": total[RESTORED],
            "details": dict(total),
            "because": "rows whose key is taken, or whose parent is gone, stay in the archive",
            "counted": "at_most",
            "counted_because": "; ".join(because),
            "counted_all": True,
            "statement": "INSERT, nothing is overwritten",
        }
        result = RunResult(
            operation=self.policy.operation,
            policy=self.policy.name,
            run_id=str(self.request.run_id),
            stop_reason=StopReason.DRY_RUN,
            total_key=self.policy.total_key,
            details=dict.fromkeys(self.policy.detail_keys, 0),
            warnings=self._warnings(),
            dry_run=True,
            plan=plan,
            tables=tuple(entries),
        )
        self.around.events.publish(stopped_event(result))
        return result
