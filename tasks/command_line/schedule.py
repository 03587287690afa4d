"""`housekeeping schedule`: what RedBeat holds, and an operator's edits to it."""

import json

import click

from tasks.command_line.console import show_list
from tasks.command_line.group import RefusingGroup, loaded_app

_COLUMNS = ("name", "task", "cron (UTC)", "on", "last run", "next due", "edited")


@click.group(cls=RefusingGroup)
def schedule() -> None:
    """Show and edit the schedules. An edit outlives restarts until `reset`."""


@schedule.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def list_(*, as_json: bool) -> None:
    """Show every entry: its cron, when it ran last, when it is due."""
    from tasks.schedule_editing import listing  # noqa: PLC0415 - not for --help

    rows = [
        (
            entry.name,
            entry.task,
            entry.schedule,
            entry.enabled,
            entry.last_run_at and entry.last_run_at.isoformat(timespec="seconds"),
            entry.next_due_at and entry.next_due_at.isoformat(timespec="seconds"),
            entry.edited,
        )
        for entry in listing(loaded_app())
    ]
    if as_json:
        keys = ("name", "task", "cron", "enabled", "last_run_at", "next_due_at", "edited")
        click.echo(json.dumps([dict(zip(keys, row, strict=True)) for row in rows]))
        return
    marks = {True: "yes", False: "no"}
    shown = [(*row[:3], marks[row[3]], row[4] or "never", row[5], marks[row[6]]) for row in rows]
    show_list(_COLUMNS, shown)


@schedule.command("set")
@click.argument("name")
@click.argument("cron")
def set_(name: str, cron: str) -> None:
    """Give entry NAME another CRON: "minute hour day-of-month month day-of-week", UTC."""
    from tasks.schedule_editing import ScheduleError, set_cron  # noqa: PLC0415 - not for --help

    try:
        set_cron(loaded_app(), name, cron)
    except ScheduleError as error:
        raise click.UsageError(str(error)) from error
    click.echo(f"{name} runs at {cron} from the next tick on")


@schedule.command()
@click.argument("name")
def enable(name: str) -> None:
    """Let entry NAME run again."""
    _switch(name, on=True)


@schedule.command()
@click.argument("name")
def disable(name: str) -> None:
    """Keep entry NAME, but do not run it."""
    _switch(name, on=False)


@schedule.command()
@click.argument("name")
def reset(name: str) -> None:
    """Put entry NAME back to what beat_schedule.py says."""
    from tasks import schedule_editing  # noqa: PLC0415 - not for --help

    try:
        schedule_editing.reset(loaded_app(), name)
    except schedule_editing.ScheduleError as error:
        raise click.UsageError(str(error)) from error
    click.echo(f"{name} is as beat_schedule.py says")


def _switch(name: str, *, on: bool) -> None:
    from tasks.schedule_editing import ScheduleError, set_enabled  # noqa: PLC0415 - not for --help

    try:
        set_enabled(loaded_app(), name, on)
    except ScheduleError as error:
        raise click.UsageError(str(error)) from error
    click.echo(f"{name} is {'enabled' if on else 'disabled'}")
