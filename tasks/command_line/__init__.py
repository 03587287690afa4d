"""The `housekeeping` command, also `celery -A tasks housekeeping`.

run.py       one run, through the queue or inline
check.py     the configuration and every policy's preflight
history.py   past runs from the ledger
restore.py   archived rows back into their table
schedule.py  what RedBeat holds
control.py   pause, resume, stop
hold.py      legal holds: placed, listed, released
console.py   how things look on a terminal and in a pipe
"""

import click

from tasks.command_line.check import check
from tasks.command_line.control import pause, resume, stop
from tasks.command_line.group import RefusingGroup
from tasks.command_line.history import history
from tasks.command_line.hold import hold
from tasks.command_line.restore import restore
from tasks.command_line.run import run
from tasks.command_line.schedule import schedule

housekeeping = RefusingGroup(
    "housekeeping",
    help="Keep the stores behind job schedulers and message queues small, fast and honest.\n\n"
    "Exit codes: 0 done, 1 failed, 2 partial, 3 another run holds the lock, 64 wrong usage, "
    "65 bad configuration.",
    commands=[run, check, history, restore, schedule, pause, resume, stop, hold],
)
click.version_option(package_name="celery-housekeeping")(housekeeping)


def main() -> None:
    """Run the command as a program of its own."""
    housekeeping(prog_name="housekeeping")
