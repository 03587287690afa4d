"""Binds an operation to Celery: policies, run ids, retries, progress, results."""

import getpass
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypedDict, Unpack
from uuid import UUID, uuid4, uuid5

from celery import Task
from celery.exceptions import Reject, Retry, SoftTimeLimitExceeded
from celery.utils.time import get_exponential_backoff_interval

from housekeeping.engine.run import Recruit, Request, Surroundings
from housekeeping.policies.errors import (
    ConfigurationRefused,
    HousekeepingError,
    RunInHand,
    RunInterrupted,
    StoreUnreachable,
)
from housekeeping.policies.events import EventStream, Subscriber, log_event
from housekeeping.policies.policy import Policy
from housekeeping.policies.result import RunResult, StopReason
from housekeeping.stores.redis.connection import connect
from tasks.configuration import RETRY_DELAY_SECONDS, current_suite
from tasks.metrics import count_event
from tasks.operations import OPERATIONS, without_effect
from tasks.progress import CeleryProgress
from tasks.recruiting import Recruiter
from tasks.results import RunFailed, combined, errors_of
from tasks.second_deliveries import put_off

_RUNS = UUID("6b1f7c52-0a0e-4c0b-9d53-5b6c1f0f7a11")  # the namespace of run ids made from task ids
_LONGEST_RETRY_DELAY_SECONDS = 300


class Asked(TypedDict, total=False):
    """What every operation's task takes beside the policy's name."""

    dry_run: bool
    """plan and count with the same code; change nothing"""
    limit: int | None
    """at most so many rows, per policy"""
    confirmed: bool
    """yes to what a safety limit would stop"""
    exact: bool
    """a dry run counts every row, however long that takes"""


def perform(
    task: Task, operation: str, policy: str | None, **asked: Unpack[Asked]
) -> dict[str, Any]:
    """Run an operation for one policy, or for every enabled one, as a Celery task.

    Returns the result as JSON takes it. Raises ConfigurationRefused where something asked for
    would have no effect; RunFailed, which carries the result, when a run ended with an error;
    retries, boundedly, what an outage interrupted: the run then goes on from its last committed
    window under the same run id. A message that was handed out a second time while its run goes on
    elsewhere is put off, as often as it takes.
    """
    refuse_without_effect(operation, asked)
    with CeleryProgress(task) as progress:
        around = surroundings((log_event, count_event, progress), Recruiter(task.app))
        run = OPERATIONS[operation].run
        try:
            results, errors = each_policy(
                lambda chosen: run(chosen, _request(task, chosen, asked), around),
                current_suite().policies(operation, policy),
            )
        except RunInHand as in_hand:
            raise put_off(task, in_hand, around.redis) from in_hand
    interrupted = [e for e in errors if isinstance(e, RunInterrupted | StoreUnreachable)]
    if interrupted and _may_retry(task):
        # Policies that have ended answer from the ledger the next time.
        raise _sent_again(task, interrupted[0]) from interrupted[0]
    if errors and len(results) == 1:
        raise errors[0]
    outcome = combined(operation, results)
    if any(result.stop_reason is StopReason.ERROR for result in results):
        raise RunFailed(f"{operation}: {errors_of(results)}", outcome)
    return outcome


def refuse_without_effect(operation: str, asked: Asked) -> None:
    """Refuse what would be accepted and change nothing: whoever gave it expects that it does.

    Whoever asks for `exact` and forgets `dry_run` wanted to count. Raises ConfigurationRefused.
    """
    if (found := without_effect(operation, asked)) is not None:
        word, what = found
        msg = f"{word}=True {what}, and tasks.{operation} takes none: leave it out"
        raise ConfigurationRefused(msg)
    if asked.get("exact") and not asked.get("dry_run"):
        raise ConfigurationRefused(
            "exact=True counts rows in a dry run: give dry_run=True as well, or leave it out"
        )


def each_policy(
    run: Callable[[Policy], RunResult], policies: Sequence[Policy]
) -> tuple[list[RunResult], list[HousekeepingError]]:
    """Run every policy, also those after one that failed; return the results and the errors.

    The error of a lone policy is raised as it is: nobody else is kept waiting by it. So is
    RunInHand: whoever has the run in hand sees to the other policies too.
    """
    results, errors = [], []
    for policy in policies:
        try:
            results.append(run(policy))
        except RunInHand:
            raise
        except HousekeepingError as error:
            if len(policies) == 1 and isinstance(error, ConfigurationRefused):
                raise
            errors.append(error)
            results.append(refused(policy, error))
    return results, errors


def refused(policy: Policy, error: HousekeepingError) -> RunResult:
    """Return the result of a policy that could not begin."""
    return RunResult(
        operation=policy.operation,
        policy=policy.name,
        run_id="",
        stop_reason=StopReason.ERROR,
        total_key=policy.total_key,
        details=dict.fromkeys(policy.detail_keys, 0),
        error=error.message,
    )


def perform_inline(
    operation: str, subscribers: Iterable[Subscriber], policy: str | None, **asked: Unpack[Asked]
) -> list[RunResult]:
    """Run an operation in this process: no worker, and no broker beyond the lease's Redis."""
    refuse_without_effect(operation, asked)
    around = surroundings((log_event, *subscribers))
    policies = current_suite().policies(operation, policy)
    run = OPERATIONS[operation].run
    results, errors = each_policy(
        lambda chosen: run(chosen, Request(run_by=run_by(), **asked), around), policies
    )
    if errors and len(policies) == 1:
        raise errors[0]
    return results


def surroundings(subscribers: Iterable[Subscriber], recruit: Recruit | None = None) -> Surroundings:
    """Return what a run needs from outside, from this process's settings."""
    suite = current_suite()
    ledger = suite.database_url.reveal() if suite.database_url else None
    return Surroundings(
        redis=connect(suite.redis_url.reveal()),
        ledger_url=ledger,
        events=EventStream(subscribers, passing=(SoftTimeLimitExceeded,)),
        recruit=recruit,
        workers_per_database=suite.max_workers_per_database,
    )


def run_by() -> str:
    """Return who this process is: user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's uid without a name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def _request(task: Task, policy: Policy, asked: Asked) -> Request:
    task_id = task.request.id
    return Request(
        run_by=run_by(),
        run_id=uuid5(_RUNS, f"{task_id}:{policy.operation}:{policy.name}") if task_id else uuid4(),
        task_id=task_id,
        will_retry=_may_retry(task),
        **asked,
    )


def _may_retry(task: Task) -> bool:
    request = task.request
    return not request.called_directly and request.retries < task.max_retries


def _sent_again(task: Task, error: Exception) -> Exception:
    """Send the task again after a while; return what Celery wants raised for it.

    Where the broker is away too, Celery would give the message up: the run, interrupted by the very
    same outage, was lost. It goes back to its queue on the next connection instead.
    """
    try:
        task.retry(exc=error, countdown=_delay(task))
    except Reject as unsent:
        error = Reject(unsent.reason, requeue=True)
    except Retry as retry:
        error = retry
    return error


def _delay(task: Task) -> int:
    """Return seconds: exponential, with full jitter, so that a fleet does not come back at once."""
    return 1 + int(
        get_exponential_backoff_interval(
            factor=RETRY_DELAY_SECONDS,
            retries=task.request.retries,
            maximum=_LONGEST_RETRY_DELAY_SECONDS,
            full_jitter=True,
        )
    )
