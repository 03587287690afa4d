"""A dry run: what would go, by which statements, what goes along, and what it would cost.

Small and medium tables are counted, window by window, by the loop that would delete. Where counting
is predicted to take long, the planner's estimate stands in, unless somebody asked for every row.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from sqlalchemy import Connection

from housekeeping.engine.conducting import stopped_event
from housekeeping.engine.outcomes import ended_by
from housekeeping.engine.pacing import Budget, Rest
from housekeeping.engine.planning import Plan
from housekeeping.engine.price.effort import counting_seconds
from housekeeping.engine.purging import PurgeLoop, Tally
from housekeeping.engine.reporting import Expectation, RunReport
from housekeeping.engine.run import Request, Surroundings
from housekeeping.engine.walks import walk_of
from housekeeping.operations.closing import Closing
from housekeeping.operations.dry_runs.outlook import Outlook, look_back, outlook
from housekeeping.operations.dry_runs.priced_plan import Found, PricedPlan, priced
from housekeeping.operations.dry_runs.rehearsal import CountingWindows, rehearsed
from housekeeping.policies.errors import AllowanceExceeded
from housekeeping.policies.purge import PurgePolicy
from housekeeping.policies.result import RunResult, StopReason
from housekeeping.stores.postgres.preflight import Target
from housekeeping.stores.postgres.windows import WindowStore

COUNT_SECONDS = 10.0
"""Up to so many predicted seconds rows are counted unasked."""
# A prediction can be wrong by much on a slow disk; then the estimate has to do after all.
_COUNT_PATIENCE = timedelta(seconds=30)


class Whole(Protocol):
    """A partition that goes as a whole."""

    @property
    def rows(self) -> int: ...

    @property
    def bytes(self) -> int: ...


class Told(Expectation, Protocol):
    """A plan that can be told in the result."""

    def as_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class _Counted:
    """How rows were found, in all and by table."""

    counted: str
    """exact, estimate or partly"""
    because: str
    parts: tuple[Found, ...]


@dataclass
class DryRun:
    """One dry run of a policy: reads, and changes nothing."""

    connection: Connection
    policy: PurgePolicy
    request: Request
    around: Surroundings
    target: Target
    plan: Told
    """of the whole"""
    tables: Sequence[tuple[Target, Plan]]
    """those whose rows go one by one: the table itself, or leaves of a partitioned one"""
    whole: Sequence[Whole]
    """partitions that go as they are; their rows are in the tally already"""
    now: datetime
    report: RunReport
    closing: Closing
    tally: Tally
    exceeded: Callable[[int | None], AllowanceExceeded | None]
    """what would stop a run that takes so many rows; None: they are not known"""
    _held: int = field(default=0, init=False)
    _ahead: tuple[Outlook, ...] = field(default=(), init=False)

    def run(self) -> RunResult:
        """Return the result, whose `plan` tells it all."""
        self.report.started(self.target.facts.label, self.plan, resumed=False)
        label, ledger = self.target.facts.label, self.around.ledger_url
        past = look_back(self.connection, self.policy, label, ledger)
        self._ahead = tuple(
            outlook(self.connection, table, plan, past) for table, plan in self.tables
        )
        whole, whole_counts = self.tally.rows, Counter(self.tally.counts)
        found, reason, error = self._found()
        rows = whole + sum(part.rows for part in found.parts)
        details = Counter(whole_counts)
        for part in found.parts:
            details.update(part.details)
        failed = reason is StopReason.ERROR
        shown = {} if failed else self._shown(found)
        result = self.closing.result(
            StopReason.ERROR if failed else StopReason.DRY_RUN, error=error
        )
        warnings = (*self.policy.doubts, *result.warnings, *shown.pop("warnings", ()))
        verb = "archive" if self.target.layout else "delete"
        plan = {
            **self.plan.as_dict(),
            f"would_{verb}": rows,
            "details": self.closing.details(details),
            "counted": found.counted,
            "counted_because": found.because,
            "counted_all": found.counted == "exact",
            **shown,
        }
        if self.target.holding and found.counted != "estimate":
            plan["held"] = self._held
        known = None if found.counted == "estimate" else rows
        if not failed and (exceeded := self.exceeded(known)) is not None:
            plan["would_stop"] = True
            warnings += (exceeded.message,)
        result = replace(result, warnings=warnings, plan=plan, dry_run=True)
        self.around.events.publish(stopped_event(result))
        return result

    def _shown(self, found: _Counted) -> dict[str, Any]:
        whole = found.counted == "exact"
        return priced(
            self.policy.pace,
            [
                PricedPlan(
                    self.connection,
                    ahead,
                    part,
                    rehearsed(self.connection, ahead, self.now, self.request, whole=whole),
                )
                for ahead, part in zip(self._ahead, found.parts, strict=True)
            ],
            [part.bytes for part in self.whole],
        )

    def _found(self) -> tuple[_Counted, StopReason, str | None]:
        """Count, or estimate where that would take long."""
        pace = self.policy.pace
        predicted = sum(
            counting_seconds(ahead.work(ahead.plan.estimate), pace) for ahead in self._ahead
        )
        if not counts(predicted, exact=self.request.exact):
            because = f"counting is predicted to take {predicted:,.0f} s: ask for it with --exact"
            return self._estimated(because), StopReason.EXHAUSTED, None
        parts: list[Found] = []
        reason, error = ended_by(lambda: self._count(parts), self.policy, self.request)
        if reason is StopReason.TIME_BUDGET and self._impatient:
            patience = _COUNT_PATIENCE.total_seconds()
            because = f"counting took more than {patience:.0f} s: ask for all of it with --exact"
            return self._estimated(because), StopReason.EXHAUSTED, None
        if reason is not StopReason.EXHAUSTED:
            because = f"counting ended early ({reason.value}): at least so many"
            parts += [Found("partly", 0, {})] * (len(self._ahead) - len(parts))
            partly = tuple(replace(part, counted="partly") for part in parts)
            return _Counted("partly", because, partly), reason, error
        because = "every row was counted"
        if self.whole:
            because += f"; those of {len(self.whole)} whole partitions are the planner's estimate"
        if any(keeper.not_itself for keeper in self.target.keepers):
            because += "; at least so many go: those they refer to may go after them"
        return _Counted("exact", because, tuple(parts)), reason, error

    @property
    def _impatient(self) -> bool:
        """Whether our own patience ends counting before the policy's time budget does."""
        return not self.request.exact and self.policy.pace.time_budget > _COUNT_PATIENCE

    def _count(self, parts: list[Found]) -> StopReason:
        pace, clock = self.policy.pace, self.around.clock
        if self._impatient:
            pace = replace(pace, time_budget=_COUNT_PATIENCE)
        flags, run_id = self.around.control, str(self.request.run_id)
        budget = Budget(pace, self.request.limit, clock)

        def objection() -> StopReason | None:
            return flags.objection(self.policy.task, run_id)

        for table, plan in self.tables:
            rows, before = self.tally.rows, Counter(self.tally.counts)
            windows = CountingWindows(WindowStore(self.connection, table, None))
            rest = Rest(pace.duty, clock, objection)
            loop = PurgeLoop(windows, pace, budget, rest, clock, objection, self.report, self.tally)
            walks = [walk_of(walk, table.facts, self.connection) for walk in plan.walks]
            try:
                reason = loop.run(walks)
            finally:
                self._held += windows.held
                counted = Counter(self.tally.counts)
                counted.subtract(before)
                parts.append(Found("exact", self.tally.rows - rows, dict(counted)))
            if reason is not StopReason.EXHAUSTED:
                return reason
        return StopReason.EXHAUSTED

    def _estimated(self, because: str) -> _Counted:
        """Return the planner's estimate, no more than a limit lets go."""
        limits = (self.policy.pace.row_budget, self.request.limit)
        left = min([limit for limit in limits if limit is not None], default=None)
        parts = []
        for ahead in self._ahead:
            parts.append(_estimate(ahead, left))
            left = None if left is None else left - parts[-1].rows
        if not all(ahead.storage.analyzed for ahead in self._ahead):
            because += f"; {self.target.facts.label} was never analyzed, so this is a guess"
        else:
            if self.target.keeps:
                because += "; rows that other tables keep are among them"
            if self.target.holding:
                because += "; rows that holds keep are among them"
        return _Counted("estimate", because, tuple(parts))


def _estimate(ahead: Outlook, limit: int | None) -> Found:
    expected = ahead.plan.estimate
    rows = expected if limit is None else min(expected, limit)
    share = rows / expected if expected else 0.0
    details = {reason: round(n * share) for reason, n in ahead.plan.estimates.items()}
    for key, along in ahead.along(rows).items():
        details[key] = details.get(key, 0) + round(along)
    return Found("estimate", rows, details)


def counts(predicted_seconds: float, *, exact: bool) -> bool:
    """Say whether a dry run counts every row."""
    return exact or predicted_seconds < COUNT_SECONDS
