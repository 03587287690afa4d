"""`housekeeping history`: past runs from the ledger."""

import json
from datetime import datetime
from typing import Any
from uuid import UUID

import click

from tasks.command_line.console import show_list
from tasks.command_line.group import task_name

_COLUMNS = ("started", "operation", "policy", "stopped", "rows", "batches", "seconds", "by", "run")


@click.command()
@click.option("--task", help="Only runs of this task.")
@click.option("--since", help="Only runs that began within this time, such as 7d or 12h.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, newest first.")
def history(task: str | None, since: str | None, limit: int, *, as_json: bool) -> None:
    """Show past runs, newest first: what went, why it stopped, who started it."""
    operation = task_name(task).removeprefix("tasks.") if task else None
    runs = _runs(operation, _seconds(since) if since else None, limit)
    if as_json:
        click.echo(json.dumps([_plain(run) for run in runs]))
        return
    show_list(_COLUMNS, [_row(run) for run in runs])


def _seconds(text: str) -> str:
    from settings.durations import parse_duration  # noqa: PLC0415 - not for --help

    try:
        return f"{parse_duration(text).total_seconds()} seconds"
    except ValueError as error:
        raise click.UsageError(f"--since {text!r}: {error}") from error


def _runs(operation: str | None, since: str | None, limit: int) -> list[dict[str, Any]]:
    from housekeeping.operations.records import past_runs  # noqa: PLC0415 - not for --help
    from tasks.configuration import current_suite  # noqa: PLC0415

    suite = current_suite()
    return past_runs(suite.ledger_urls(), operation, since, limit)


def _row(run: dict[str, Any]) -> list[object]:
    started: datetime = run["started_at"]
    ended: datetime | None = run["ended_at"]
    seconds = f"{(ended - started).total_seconds():.1f}" if ended else ""
    stopped = run["stop_reason"] or "running"
    return [
        started.astimezone().strftime("%Y-%m-%d %H:%M:%S"), run["operation"], run["policy"], stopped,
        run["total"], run["batches"], seconds, run["run_by"], run["id"],
    ]  # fmt: skip


def _plain(run: dict[str, Any]) -> dict[str, Any]:
    return {key: _json(value) for key, value in run.items()}


def _json(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value
