"""The frame of a run, whatever it works on: lease, ledger row, work, result."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from housekeeping.engine.run import LeaseHeld, Objection, Request, RunRecord, Surroundings, leased
from housekeeping.policies.errors import RunInHand, StoreUnreachable
from housekeeping.policies.events import RunStopped
from housekeeping.policies.policy import Policy
from housekeeping.policies.result import RunResult
from housekeeping.stores.postgres.run_ledger import RunIdentity, Started


@dataclass(frozen=True)
class Begun:
    """A run that holds its lease and has its row in the ledger."""

    started: Started
    objection: Objection
    """asks the lease and the operator's flags; ask it before every step"""
    record: RunRecord
    again: bool = False
    """this very attempt begins anew, after what it worked by has changed"""

    @property
    def resumed(self) -> bool:
        """Whether an earlier attempt of this very run got this far."""
        return self.started.attempts > 1


@dataclass(frozen=True)
class Conduct:
    """One run of a policy on one target."""

    policy: Policy
    request: Request
    around: Surroundings
    target: str
    """what the lease is on, without secrets: `host:5432/database/schema.table`"""
    connection: Connection
    """to the policy's own database"""

    def run(
        self,
        cutoffs: Mapping[str, datetime],
        work: Callable[[Begun], RunResult],
        locked: Callable[[], RunResult],
    ) -> RunResult:
        """Hold the lease, keep the ledger row, do the work; return its result.

        `work` returns a result for every way it can end; what it raises leaves the row open, for
        the attempt that follows. `locked` makes the result where another run holds the lease. A run
        that has ended before, as a redelivered message asks for, answers from the ledger.
        """
        record = self._record()
        if (earlier := record.ended()) is not None:
            return earlier
        policy, around = self.policy, self.around
        try:
            with leased(
                self.target, policy.operation, policy.name, policy.pace, self.request, around
            ) as lease:
                objection = Objection(policy.task, str(self.request.run_id), lease, around.control)
                return self._attempt(cutoffs, work, record, objection)
        except LeaseHeld as held:
            return self._locked(held, cutoffs, locked, record)

    def _attempt(
        self,
        cutoffs: Mapping[str, datetime],
        work: Callable[[Begun], RunResult],
        record: RunRecord,
        objection: Objection,
    ) -> RunResult:
        started = record.start(cutoffs)
        if started.ended and started.result is not None:
            return RunResult.from_dict(started.result)
        result = work(Begun(started, objection, record))
        try:
            record.end(result)
        except (StoreUnreachable, SQLAlchemyError) as unreachable:
            missed = f"the ledger could not be reached to end the run: {unreachable}"
            result = replace(result, warnings=(*result.warnings, missed))
        self._tell(result)
        return result

    def _locked(
        self,
        held: LeaseHeld,
        cutoffs: Mapping[str, datetime],
        locked: Callable[[], RunResult],
        record: RunRecord,
    ) -> RunResult:
        if held.by_our_twin and self.request.will_retry:
            reason = f"it renews its lease on {self.target}"
            raise RunInHand(run_id=self.request.run_id, reason=reason)
        if not held.by_our_twin:
            record.start(cutoffs)
        result = locked()
        if not held.by_our_twin:
            record.end(result)
        self._tell(result)
        return result

    def _record(self) -> RunRecord:
        identity = RunIdentity(
            id=self.request.run_id,
            operation=self.policy.operation,
            policy=self.policy.name,
            target=self.target,
            task_id=self.request.task_id,
            run_by=self.request.run_by,
        )
        own = self.policy.database_url
        url = self.around.ledger_url or own
        return RunRecord(identity, url, self.connection if url == own else None)

    def _tell(self, result: RunResult) -> None:
        self.around.events.publish(stopped_event(result))


def stopped_event(result: RunResult) -> RunStopped:
    """Return the event that ends a run."""
    return RunStopped(
        operation=result.operation,
        policy=result.policy,
        run_id=result.run_id,
        stop_reason=result.stop_reason.value,
        success=result.success,
        rows=result.total,
        batches=result.batches,
        seconds=round(result.seconds, 4),
        details=dict(result.details),
        warnings=result.warnings,
        waits=dict(result.waits),
        error=result.error or "",
    )
