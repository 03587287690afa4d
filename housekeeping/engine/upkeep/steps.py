"""The steps of a maintenance run: whom they heed, how far they are, what came of them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from housekeeping.engine.connecting import application_of
from housekeeping.engine.pacing import Budget
from housekeeping.engine.run import Request, Surroundings
from housekeeping.engine.throttling import Throttle
from housekeeping.engine.upkeep.entries import Entry, Tally
from housekeeping.engine.upkeep.needs import Need
from housekeeping.policies.events import StepEnded, StepProgress
from housekeeping.policies.maintenance import MaintenancePolicy
from housekeeping.policies.result import StopReason
from housekeeping.stores.postgres.upkeep.stepping import (
    Seen,
    StepOutcome,
    Stepping,
    StepStopped,
)

_ALMOST = 99  # a run is at 100 % only once it has ended


@dataclass
class Steps:
    """Sends steps one after the other, tells of each, and counts them."""

    policy: MaintenancePolicy
    request: Request
    around: Surroundings
    objection: Callable[[], StopReason | None]
    budget: Budget
    throttle: Throttle
    tally: Tally
    total: int
    """steps expected"""
    _done: int = field(default=0, init=False)

    def ask(self) -> None:
        """Wait until the database is well; leave where the lease is lost, somebody objects, or the
        time is over. Between steps.
        """
        if (reason := self._objection() or self.throttle.hold()) is not None:
            raise StepStopped(reason)

    def stepping(self, what: str, stuck_after: timedelta | None = None) -> Stepping:
        """Return how the next step is sent; `what` is told with its progress."""
        policy = self.policy
        return Stepping(
            url=policy.database_url,
            application=self.application,
            patience=policy.patience,
            objection=self._objection,
            seen=lambda seen: self._seen(what, seen),
            stuck_after=stuck_after or policy.old_transaction,
            lock_timeout=policy.pace.lock_timeout,
            cost_limit=policy.vacuum_limits.cost_limit,
        )

    @property
    def application(self) -> str:
        return application_of(self.policy, self.request.run_id)

    def took(self, entry: Entry, need: Need, outcome: StepOutcome, **figures: object) -> None:
        """Count a step that is over."""
        self._done += 1
        self.tally.took(entry, need, outcome, **figures)
        self.told(entry, need, outcome)

    def told(self, entry: Entry, need: Need, outcome: StepOutcome) -> None:
        """Tell of a step that is over, or will be tried again."""
        self.around.events.publish(
            StepEnded(
                **self._who,
                step=f"{need.work.value} {entry.label}",
                reason=need.reason,
                outcome=outcome.ending.value,
                seconds=round(outcome.seconds, 3),
                told=outcome.told or "",
            )
        )

    def _objection(self) -> StopReason | None:
        return self.objection() or self.budget.spent(0)

    def _seen(self, what: str, seen: Seen) -> None:
        of_this = min(1.0, seen.done / seen.total) if seen.total else 0.0
        share = (self._done + of_this) / max(1, self.total)
        self.around.events.publish(
            StepProgress(
                **self._who,
                step=what,
                phase=seen.phase,
                done=seen.done,
                total=seen.total,
                percent=min(_ALMOST, int(100 * share)),
            )
        )

    @property
    def _who(self) -> dict[str, str]:
        return {
            "operation": self.policy.operation,
            "policy": self.policy.name,
            "run_id": str(self.request.run_id),
        }
