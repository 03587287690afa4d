"""`housekeeping run TASK`: one run, through the queue or in this process."""

import json
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from celery import Celery
from celery.exceptions import OperationalError as BrokerUnreachable
from celery.result import AsyncResult
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from housekeeping.policies.errors import (
    ConfigurationRefused,
    HousekeepingError,
    StoreUnreachable,
)
from housekeeping.policies.events import Event
from housekeeping.policies.result import RunResult
from tasks.command_line.console import (
    ProgressLines,
    log_warnings_plainly,
    progress_lines,
    show_result,
)
from tasks.command_line.group import loaded_app, task_name
from tasks.progress import progress_of, reported
from tasks.results import RunFailed, combined, exit_code

if TYPE_CHECKING:
    from tasks.running import Asked

_POLL_SECONDS = 0.2
_ASK_FOR_WORKERS_AFTER_SECONDS = 5.0


@click.command()
@click.argument("task")
@click.option("--policy", help="Run this policy only. Default: every enabled one of the task.")
@click.option("--dry-run", is_flag=True, help="Plan and count with the same code; change nothing.")
@click.option(
    "--exact",
    is_flag=True,
    help="With --dry-run: count every row, however long that takes. Not with database.*.",
)
@click.option("--inline", is_flag=True, help="Run in this process: no worker, no broker.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="Take at most so many rows, per policy; tables with database.*.",
)
@click.option(
    "--yes",
    is_flag=True,
    help="Go on where a limit on rows would stop and ask. Not with database.*.",
)
@click.pass_context
def run(
    ctx: click.Context,
    task: str,
    policy: str | None,
    *,
    dry_run: bool,
    exact: bool,
    inline: bool,
    as_json: bool,
    limit: int | None,
    yes: bool,
) -> None:
    """Run TASK once, such as `occurrences.retention`, and show what it did."""
    name = task_name(task)
    if exact and not dry_run:
        raise click.UsageError("--exact counts rows in a dry run: give --dry-run as well")
    asked: Asked = {"dry_run": dry_run, "limit": limit, "confirmed": yes, "exact": exact}
    _refuse_without_effect(name, asked)
    with progress_lines(quiet=as_json) as lines:
        if inline:
            result = _inline(name, policy, lines, asked)
        else:
            result = _through_queue(name, {"policy": policy, **asked}, lines)
    if as_json:
        click.echo(json.dumps(result))
    else:
        show_result(result)
    ctx.exit(exit_code(result))


def _refuse_without_effect(name: str, asked: "Asked") -> None:
    """Refuse before anything is queued what the task would refuse, by the option's name."""
    from tasks.operations import without_effect  # noqa: PLC0415 - not for --help

    if (found := without_effect(name.removeprefix("tasks."), asked)) is not None:
        word, what = found
        option = {"exact": "--exact", "confirmed": "--yes"}[word]
        raise click.UsageError(f"{option} {what}, and {name} takes none: leave it out")


def _inline(
    name: str, policy: str | None, lines: ProgressLines | None, asked: "Asked"
) -> dict[str, Any]:
    from housekeeping.stores.postgres.interruption import install  # noqa: PLC0415 - not for --help
    from tasks.running import perform_inline  # noqa: PLC0415

    def show(event: Event) -> None:
        if lines is not None and (progress := progress_of(event)) is not None:
            lines.show(progress)

    log_warnings_plainly()
    install()  # Ctrl-C ends the statement, here and on the server
    # Schedulers and service managers send TERM: end as on Ctrl-C, with a result and no lease left.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    operation = name.removeprefix("tasks.")
    results: list[RunResult] = perform_inline(operation, (show,), policy, **asked)
    return combined(operation, results)


def _through_queue(
    name: str, arguments: dict[str, Any], lines: ProgressLines | None
) -> dict[str, Any]:
    from tasks.configuration import current_suite  # noqa: PLC0415 - not for --help

    app = loaded_app()
    if current_suite().result_backend.reveal().startswith("disabled"):
        raise ConfigurationRefused(
            'result_backend = "disabled://" keeps no result: a run sent through the queue could '
            "not be watched, and was not sent. Give one such as redis://host:6379/1, or run it "
            "here with --inline"
        )
    _require_results(app)
    broker = app.connection_for_write()
    try:
        answer = app.send_task(name, kwargs=arguments, retry=False)
    except (
        BrokerUnreachable,
        OperationalError,
        RedisError,
        RuntimeError,
        # RabbitMQ's refusals: of a user, of a virtual host.
        *broker.connection_errors,
        *broker.channel_errors,
    ) as error:
        raise StoreUnreachable(
            store=f"the broker {current_suite().broker_url}",
            reason=str(error),
            setting="broker_url" if current_suite().given_broker_url else "redis_url",
        ) from error
    try:
        return _wait(answer, lines, lambda: bool(app.control.ping(timeout=1.0)))
    except KeyboardInterrupt:
        raise click.ClickException(
            f"no longer watching; the task {answer.id} goes on. `housekeeping stop {answer.id}` "
            "stops its run"
        ) from None


def _require_results(app: Celery) -> None:
    """Raise StoreUnreachable where a Redis for results does not answer.

    Celery asks it 50 times before it sends a task (`result_backend_max_retries`), for minutes and
    without a word: right for a worker, not for somebody at a prompt.
    """
    from tasks.configuration import current_suite  # noqa: PLC0415 - not for --help

    client = getattr(app.backend, "client", None)
    try:
        if client is not None and hasattr(client, "ping"):
            client.ping()
    except RedisError as error:
        suite = current_suite()
        raise StoreUnreachable(
            store=f"the result backend {suite.result_backend}",
            reason=str(error),
            setting="result_backend" if suite.given_result_backend else "redis_url",
        ) from error


def _wait(
    answer: AsyncResult[Any], lines: ProgressLines | None, worker_answers: Callable[[], bool]
) -> dict[str, Any]:
    """Show progress until the task has ended; return its result, also a failed run's."""
    ask_at: float | None = time.monotonic() + _ASK_FOR_WORKERS_AFTER_SECONDS
    while not answer.ready():
        state, progress = reported(answer)
        if progress is not None and lines is not None:
            lines.show(progress)
        if state == "PENDING" and ask_at is not None and time.monotonic() > ask_at:
            ask_at = None
            if not worker_answers():
                click.secho(
                    "no worker answers; the task waits in its queue. Start one with "
                    "`celery -A tasks worker`, or run with --inline",
                    fg="yellow",
                    err=True,
                )
        time.sleep(_POLL_SECONDS)
    return outcome_of(answer)


def outcome_of(answer: AsyncResult[Any]) -> dict[str, Any]:
    """Return the result of a task that has ended, also a failed run's.

    Raises what the task raised when there is no result.
    """
    if answer.successful():
        result: dict[str, Any] = answer.result
        return result
    error: object = answer.result
    if isinstance(error, RunFailed):
        return error.result
    if isinstance(error, HousekeepingError):
        raise error
    raise click.ClickException(f"the task failed: {type(error).__name__}: {error}")
