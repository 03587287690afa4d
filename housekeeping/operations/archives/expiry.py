"""Drop dated tables past their age, after exporting them where that is asked for.

Only what the ledger proves to be ours and complete goes, one short transaction a table. Whatever is
in doubt stays, and the result says why.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from housekeeping.engine.conducting import Begun, Conduct, stopped_event
from housekeeping.engine.connecting import connected_for
from housekeeping.engine.outcomes import ended_by
from housekeeping.engine.pacing import Budget, Rest
from housekeeping.engine.run import LeaseHeld, Request, Surroundings, leased
from housekeeping.engine.throttling import Hours
from housekeeping.operations.archives.dated_groups import (
    Group,
    groups_of,
    refuse_too_short,
    sources_of,
)
from housekeeping.operations.archives.group_expiry import GroupExpiry, Leaving, Tally
from housekeeping.operations.archives.rehearsal import inspect_archive_expiry, rehearse
from housekeeping.policies.archives import ArchiveExpiryPolicy
from housekeeping.policies.errors import ExportUnreachable, StoreUnreachable
from housekeeping.policies.events import RunStarted
from housekeeping.policies.result import RunResult, StopReason
from housekeeping.stores.files.exports import Exports
from housekeeping.stores.postgres.archives.known import done_by, oid_of_label
from housekeeping.stores.postgres.catalog import TableFacts, describe_table
from housekeeping.stores.postgres.connection import connected, guarded, place
from housekeeping.stores.postgres.cutoffs import database_now
from housekeeping.stores.postgres.fencing import become_writer
from housekeeping.stores.postgres.holds import holds_on_database
from housekeeping.stores.postgres.ledger_schema import ensure_ledger
from housekeeping.stores.postgres.window_ledger import Summary, summary_of

__all__ = ["drop_expired_archives", "inspect_archive_expiry"]

# A retention run on the source holds its lease for minutes; the next run of ours comes in a month.
_LEASE_PATIENCE_SECONDS = 600.0
_LEASE_STEP_SECONDS = 5.0
CUTOFF = "expired"


def drop_expired_archives(
    policy: ArchiveExpiryPolicy, request: Request, around: Surroundings
) -> RunResult:
    """Drop what `policy` calls expired, or in a dry run tell what would go and what would not.

    Returns a result for every way a run can end. Raises PolicyRefused when the policy can't run,
    StoreUnreachable when the database or Redis does not answer at the start, and RunInterrupted
    when `request.will_retry` and running it again would go on.
    """
    with connected_for(policy, request) as connection:
        return _Expiry(policy, request, around, connection).run()


@dataclass
class _Expiry:
    policy: ArchiveExpiryPolicy
    request: Request
    around: Surroundings
    connection: Connection
    hours: Hours = field(init=False)
    cutoffs: dict[str, datetime] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    failure: str | None = None
    begun_at: float = 0.0

    def run(self) -> RunResult:
        self.begun_at = self.around.clock.monotonic()
        refuse_too_short(self.policy)
        exports = Exports(self.policy.export) if self.policy.export else None
        if self.request.dry_run:
            result = rehearse(self.policy, self.request, self.connection, exports)
            self.around.events.publish(stopped_event(result))
            return result
        ensure_ledger(self.connection)
        with self._looking():
            now = database_now(self.connection)
            self.hours = Hours(self.policy.pace, now, self.around.clock)
            sources = sources_of(self.connection, self.policy)
            holds_on_database(self.connection, self.policy)  # one that can't be honoured: refused
        self.cutoffs = {CUTOFF: now - self.policy.keep_for}
        target = f"{place(self.policy.database_url)}/{self.policy.works_on}"
        conduct = Conduct(self.policy, self.request, self.around, target, self.connection)
        return conduct.run(
            self.cutoffs,
            lambda begun: self._attempt(begun, sources, exports),
            lambda: self._finish(StopReason.LOCKED, None),
        )

    @contextmanager
    def _looking(self) -> Iterator[None]:
        with guarded(self.connection, self.policy.pace, reading=True, any_plan=True):
            yield

    def _attempt(self, begun: Begun, sources: list[str], exports: Exports | None) -> RunResult:
        if CUTOFF in begun.started.cutoffs:
            self.cutoffs = dict(begun.started.cutoffs)
        reason, error = ended_by(
            lambda: self._expire(begun, sources, exports), self.policy, self.request
        )
        return self._finish(reason, error or self.failure)

    def _expire(self, begun: Begun, sources: list[str], exports: Exports | None) -> StopReason:
        if (reason := begun.objection()) is not None:
            return reason
        if (closed := self.hours.closed()) is not None:
            self.tally.warnings.append(closed)
            return StopReason.THROTTLED
        begun.record.settle_abandoned(self.connection)
        with self._looking():
            summary = summary_of(self.connection, self.request.run_id)
            waiting = {
                source: self._expired(groups_of(self.connection, source)) for source in sources
            }
        self.tally.number, self.tally.dropped = summary.last_number, summary.rows
        waiting = {source: groups for source, groups in waiting.items() if groups}
        going = sum(len(group.tables) for groups in waiting.values() for group in groups)
        self.tally.estimate = self.tally.dropped + going
        self._tell_start(begun)
        try:
            if exports is not None and waiting:
                exports.place.require()
            return self._all(begun, list(waiting), exports)
        except Leaving as leaving:
            return leaving.reason
        except ExportUnreachable as unreachable:
            self.failure = unreachable.message
            return StopReason.ERROR

    def _expired(self, groups: list[Group]) -> list[Group]:
        cutoff = self.cutoffs[CUTOFF] + self.policy.keep_for
        return [group for group in groups if (due := group.due(self.policy)) and due <= cutoff]

    def _all(self, begun: Begun, sources: list[str], exports: Exports | None) -> StopReason:
        """Go through all sources; come back for a while to those another run works on."""
        clock = self.around.clock
        budget = Budget(self.policy.pace, self.request.limit, clock)
        give_up = clock.monotonic() + _LEASE_PATIENCE_SECONDS
        rest = Rest(1.0, clock, begun.objection)
        while sources:
            held = []
            for source in sources:
                try:
                    self._source(begun, source, exports, budget)
                except LeaseHeld:
                    held.append(source)
            sources = held
            if not sources:
                break
            left = budget.spent(self.tally.dropped) or begun.objection()
            if left is not None:
                return left
            if clock.monotonic() >= give_up:
                self._keep_held(sources)
                return StopReason.LOCKED
            rest.pause(_LEASE_STEP_SECONDS)
        return StopReason.EXHAUSTED

    def _source(self, begun: Begun, source: str, exports: Exports | None, budget: Budget) -> None:
        policy, request = self.policy, self.request
        where = f"{place(policy.database_url)}/{source}"
        with leased(
            where, policy.operation, policy.name, policy.pace, request, self.around
        ) as lease:

            def objection() -> StopReason | None:
                lease.check()
                return begun.objection()

            with self._looking():  # again: until now a run of archiving may have moved rows
                groups = self._expired(groups_of(self.connection, source))
                facts = self._guarding(source, groups)
            if facts is None:
                return
            writer = become_writer(self.connection, facts, request.run_id, policy.pace)
            expiry = GroupExpiry(
                self.connection, policy, request, self.around, exports, writer.ledger, facts.oid,
                objection, budget, self.hours, self.tally,
            )  # fmt: skip
            for group in groups:
                expiry.expire(group)

    def _guarding(self, source: str, groups: list[Group]) -> TableFacts | None:
        """Return the table whose fence keeps archive runs out: the source, or what is left of it."""
        if not groups:
            return None
        oid = oid_of_label(self.connection, source)
        return describe_table(self.connection, groups[0].main.oid if oid is None else oid)

    def _keep_held(self, sources: list[str]) -> None:
        with self._looking():
            for source in sources:
                for group in self._expired(groups_of(self.connection, source)):
                    for table in group.tables:
                        self.tally.keep(table, f"another run works on {source}")

    def _tell_start(self, begun: Begun) -> None:
        self.around.events.publish(
            RunStarted(
                operation=self.policy.operation,
                policy=self.policy.name,
                run_id=str(self.request.run_id),
                table=self.policy.works_on,
                walk="oldest month first",
                estimate=self.tally.estimate,
                dry_run=False,
                resumed=begun.resumed,
            )
        )

    def _finish(self, reason: StopReason, error: str | None) -> RunResult:
        """Sum the committed windows up, on a new connection where the old one is gone."""
        try:
            return self._result(self.connection, reason, error)
        except SQLAlchemyError:
            pass
        try:
            with connected(self.policy.database_url, "hk:ledger") as another:
                return self._result(another, reason, error)
        except (SQLAlchemyError, StoreUnreachable) as gone:
            told = f"{error or 'the run ended'}; its windows could not be summed up: {gone}"
            return self._shape(StopReason.ERROR, told, None, [])

    def _result(self, connection: Connection, reason: StopReason, error: str | None) -> RunResult:
        with guarded(connection, self.policy.pace, any_plan=True):
            summary = summary_of(connection, self.request.run_id)
            done = done_by(connection, self.request.run_id)
        return self._shape(reason, error, summary, done)

    def _shape(
        self,
        reason: StopReason,
        error: str | None,
        summary: Summary | None,
        done: list[dict[str, Any]],
    ) -> RunResult:
        counts = dict(summary.counts) if summary else {}
        counts["kept_incomplete"] = self.tally.incomplete
        entries = {entry["table"]: entry for entry in done}
        for entry in self.tally.kept:
            entries[entry["table"]] = {**entries.get(entry["table"], {}), **entry}
        failed = reason is StopReason.ERROR
        result = RunResult(
            operation=self.policy.operation,
            policy=self.policy.name,
            run_id=str(self.request.run_id),
            stop_reason=reason,
            total_key=self.policy.total_key,
            total=summary.rows if summary else 0,
            details={key: int(counts.get(key, 0)) for key in self.policy.detail_keys},
            cutoffs=self.cutoffs,
            batches=summary.windows if summary else 0,
            seconds=self.around.clock.monotonic() - self.begun_at,
            left_behind=self.tally.left_behind,
            holds=tuple(self.tally.holds),
            warnings=tuple(self.tally.warnings),
            error=error if failed else None,
            tables=tuple(entries.values()),
        )
        if error is not None and not failed:
            result = replace(result, warnings=(*result.warnings, error))
        return result
