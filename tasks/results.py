"""What a task answers when it ran several policies, and when a run failed."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from housekeeping.policies.result import Phases, RunResult, StopReason

# From the worst: what a task that ran several policies stopped for.
_SEVERITY = (
    StopReason.ERROR,
    StopReason.LOCK_LOST,
    StopReason.STOPPED,
    StopReason.PAUSED,
    StopReason.THROTTLED,
    StopReason.TIME_BUDGET,
    StopReason.ROW_BUDGET,
    StopReason.LOCKED,
    StopReason.DRY_RUN,
    StopReason.EXHAUSTED,
)
_EXIT_SEVERITY = (1, 2, 3, 0)


class RunFailed(Exception):
    """A run ended with an error. `result` is the whole result, also for what was committed."""

    def __init__(self, message: str, result: dict[str, Any]) -> None:
        # Celery's JSON backend rebuilds an exception from its args.
        super().__init__(message, result)
        self.message = message
        self.result = result

    def __str__(self) -> str:
        return self.message


def combined(operation: str, results: Sequence[RunResult]) -> dict[str, Any]:
    """Return one result for a task: the run's own, or the sum over its policies under `runs`.

    The sum has the same keys; `policy` lists the names, `run_id` is the first run's.
    """
    if len(results) == 1:
        return results[0].as_dict()
    details: Counter[str] = Counter()
    phases = Phases()
    waits: Counter[str] = Counter()
    for result in results:
        details.update(result.details)
        waits.update(result.waits)
        for name, seconds in vars(result.phases).items():
            setattr(phases, name, getattr(phases, name) + seconds)
    ages = [age for r in results if (age := r.oldest_expired_age_seconds) is not None]
    total = RunResult(
        operation=operation,
        policy=", ".join(result.policy for result in results),
        run_id=results[0].run_id if results else "",
        stop_reason=worst([result.stop_reason for result in results]),
        total=sum(result.total for result in results),
        details=details,
        cutoffs={f"{r.policy}.{key}": moment for r in results for key, moment in r.cutoffs.items()},
        batches=sum(result.batches for result in results),
        seconds=sum(result.seconds for result in results),
        phases=phases,
        oldest_expired_age_seconds=max(ages, default=None),
        warnings=tuple(f"{r.policy}: {warning}" for r in results for warning in r.warnings)
        or ((f"{operation}: no policy is enabled, so nothing was run",) if not results else ()),
        waits=waits,
        left_behind=sum(result.left_behind for result in results),
        dry_run=any(result.dry_run for result in results),
        error=errors_of(results) or None,
    )
    return {**total.as_dict(), "runs": [result.as_dict() for result in results]}


def errors_of(results: Sequence[RunResult]) -> str:
    """Return what went wrong, each with its policy's name, which refusals begin with themselves."""
    return "; ".join(
        f"{each.policy}: {each.error.removeprefix(f'{each.policy}: ')}"
        for each in results
        if each.error
    )


def worst(reasons: Sequence[StopReason]) -> StopReason:
    """Return the gravest of several stop reasons; exhausted when there was nothing to do."""
    return min(reasons, key=_SEVERITY.index, default=StopReason.EXHAUSTED)


def exit_code(result: dict[str, Any]) -> int:
    """Return the contract's exit code for a result, or for the gravest of its runs."""
    shapes = result.get("runs") or [result]
    codes = [RunResult.from_dict(shape).exit_code for shape in shapes]
    return min(codes, key=_EXIT_SEVERITY.index)
