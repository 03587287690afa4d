"""Turns what a purge does into events."""

from typing import Protocol

from housekeeping.engine.purging import Tally
from housekeeping.engine.run import Request
from housekeeping.policies.events import (
    EventStream,
    RunPaced,
    RunStarted,
    RunWaiting,
    WindowCommitted,
    WindowPassed,
    WindowShrunk,
)
from housekeeping.policies.health import Reading
from housekeeping.policies.policy import Policy
from housekeeping.stores.postgres.ranges import Range
from housekeeping.stores.postgres.windows import WindowOutcome

_ALMOST = 99  # a run is at 100 % only once it has ended


class Expectation(Protocol):
    """A plan, as far as it is told."""

    @property
    def in_parts(self) -> bool:
        """Whether it goes part by part: how far one is walked then says little of the whole."""

    @property
    def estimate(self) -> int: ...

    @property
    def told(self) -> str: ...


class RunReport:
    """Publishes the events of one run."""

    def __init__(self, policy: Policy, request: Request, events: EventStream) -> None:
        self._events = events
        self._who = {
            "operation": policy.operation,
            "policy": policy.name,
            "run_id": str(request.run_id),
        }
        self._dry_run = request.dry_run
        self._estimate = 0
        self._in_parts = False
        self._done = self._percent_done = 0

    def started(self, table: str, plan: Expectation, *, resumed: bool) -> None:
        self._estimate = plan.estimate
        self._in_parts = plan.in_parts
        self._events.publish(
            RunStarted(
                **self._who,
                table=table,
                walk=plan.told,
                estimate=plan.estimate,
                dry_run=self._dry_run,
                resumed=resumed,
            )
        )

    def committed(self, outcome: WindowOutcome, tally: Tally, fraction: float | None) -> None:
        self._done, self._percent_done = tally.rows, self._percent(tally.rows, fraction)
        self._events.publish(
            WindowCommitted(
                **self._who,
                rows=outcome.rows,
                seconds=round(outcome.delete_seconds + outcome.commit_seconds, 4),
                done=self._done,
                estimate=max(self._estimate, self._done),
                percent=self._percent_done,
            )
        )

    def awaiting(self, cause: str, rows: int, fraction: float) -> None:
        """Tell that the run has nothing to do but wait, and how far it is."""
        self._done, self._percent_done = rows, self._percent(rows, fraction)
        self._wait_for(cause, 0.0)

    def _percent(self, rows: int, fraction: float | None) -> int:
        if fraction is None or self._in_parts:
            fraction = rows / max(1, self._estimate)
        return min(_ALMOST, int(100 * fraction))

    def waiting(self, reading: Reading, seconds: float) -> None:
        self._wait_for(f"{reading.signal}: {reading.reason}", seconds)

    def _wait_for(self, cause: str, seconds: float) -> None:
        self._events.publish(
            RunWaiting(
                **self._who,
                cause=cause,
                seconds=round(seconds, 4),
                done=self._done,
                estimate=max(self._estimate, self._done),
                percent=self._percent_done,
            )
        )

    def paced(self, reading: Reading) -> None:
        self._events.publish(
            RunPaced(
                **self._who,
                signal=reading.signal,
                verdict=reading.verdict.name.lower(),
                reason=reading.reason,
            )
        )

    def shrunk(self, window: Range, cause: str) -> None:
        self._events.publish(WindowShrunk(**self._who, window=bounds_text(window), cause=cause))

    def passed(self, window: Range, cause: str, rows: int) -> None:
        self._events.publish(
            WindowPassed(**self._who, window=bounds_text(window), cause=cause, rows=rows)
        )


def bounds_text(window: Range) -> str:
    """Return a window's bounds for people."""
    lower, upper = window.bounds()
    return f"{lower or 'the beginning'} to {upper}"
