"""`housekeeping pause`, `resume` and `stop`: honoured within one window."""

from typing import TYPE_CHECKING
from uuid import UUID

import click

from tasks.command_line.group import task_name

if TYPE_CHECKING:
    from housekeeping.stores.redis.control import Control

_UUID_LENGTH = 36
_SHORTEST_PREFIX = 4  # an empty one, from a variable nobody set, would mean somebody else's run


@click.command()
@click.argument("task", required=False)
def pause(task: str | None) -> None:
    """Pause TASK, or every task: runs leave within one window, and none starts."""
    name = task_name(task) if task else None
    _control().pause(name)
    lifts = f"housekeeping resume {task}" if task else "housekeeping resume"
    click.echo(f"paused {name or 'every task'}; `{lifts}` lifts it")


@click.command()
@click.argument("task", required=False)
def resume(task: str | None) -> None:
    """Lift the pause of TASK; without TASK, every pause."""
    name = task_name(task) if task else None
    control = _control()
    lifted = control.resume(name)
    told = "resumed" if lifted else "was not paused:"
    click.echo(f"{told} {name or 'every task'}")
    if name is not None and "*" in control.paused():
        click.secho("every task is still paused; `housekeeping resume` lifts that", fg="yellow")


@click.command()
@click.argument("run")
def stop(run: str) -> None:
    """Have RUN leave within one window: a run's id, the beginning of one, or its task's id."""
    control = _control()
    for run_id in _meant(run):
        control.stop(str(run_id))
        click.echo(f"run {run_id} will stop within one window")


def _control() -> "Control":
    from housekeeping.stores.redis.connection import connect  # noqa: PLC0415 - not for --help
    from housekeeping.stores.redis.control import Control  # noqa: PLC0415
    from tasks.configuration import current_suite  # noqa: PLC0415

    return Control(connect(current_suite().redis_url.reveal()))


def _meant(run: str) -> list[UUID]:
    """Return the runs to stop: one, or all of one task."""
    from housekeeping.operations.records import runs_called  # noqa: PLC0415 - not for --help
    from tasks.configuration import current_suite  # noqa: PLC0415

    if len(run) < _SHORTEST_PREFIX:
        raise click.UsageError(f"{run!r} is too short: give at least {_SHORTEST_PREFIX} characters")
    found = runs_called(current_suite().ledger_urls(), run)
    going = [one.id for one in found if not one.ended]
    whole_id = len(run) == _UUID_LENGTH
    if len(going) == 1 or (going and whole_id):
        return going
    if going:
        told = ", ".join(str(run_id) for run_id in going)
        raise click.UsageError(f"{run!r} could be more than one run: {told}")
    if found:
        raise click.UsageError(f"run {found[0].id} has ended already")
    raise click.UsageError(f"no run {run!r}; `housekeeping history` lists them")
