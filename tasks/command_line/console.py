"""How things look: progress and tables on a terminal, plain lines in a pipe."""

import copy
import logging
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from tasks.command_line.plan_text import plan_lines

out = Console()
err = Console(stderr=True)


class _OneLine(logging.Formatter):
    """Leaves the traceback out: whoever sits at the prompt reads what went wrong, not our stack."""

    def format(self, record: logging.LogRecord) -> str:
        plain = copy.copy(record)
        plain.exc_info, plain.exc_text, plain.stack_info = None, None, None
        return super().format(plain)


def log_warnings_plainly() -> None:
    """Show our warnings and errors on stderr, a line each, unless somebody has set logging up."""
    log = logging.getLogger("housekeeping")
    if not log.hasHandlers():
        handler = logging.StreamHandler()
        handler.setLevel(logging.WARNING)
        handler.setFormatter(_OneLine("%(message)s"))
        log.addHandler(handler)


class ProgressLines:
    """Shows progress as dictionaries with done, total, percent and message arrive.

    On a terminal a bar; in a pipe a line on stderr each time the message or the tenth changes.
    """

    def __init__(self, bar: Progress | None) -> None:
        self._bar = bar
        self._task: TaskID | None = None
        self._told: tuple[str, int] | None = None

    def show(self, progress: Mapping[str, Any]) -> None:
        """Show how far a run is."""
        if self._bar is None:
            self._line(progress)
            return
        if self._task is None:
            self._task = self._bar.add_task("", total=100)
        self._bar.update(self._task, completed=progress["percent"], description=progress["message"])

    def _line(self, progress: Mapping[str, Any]) -> None:
        walking = "walking" in progress["message"]
        mark = (progress["message"] if walking else "", progress["percent"] // 10)
        if mark != self._told:
            self._told = mark
            click.echo(f"{progress['percent']:3d} %  {progress['message']}", err=True)


@contextmanager
def progress_lines(*, quiet: bool = False) -> Iterator[ProgressLines | None]:
    """Show progress for a block; nothing when quiet."""
    if quiet:
        yield None
    elif err.is_terminal:
        with progress_bar() as bar:
            yield ProgressLines(bar)
    else:
        yield ProgressLines(None)


def progress_bar() -> Progress:
    """Return our progress bar, on stderr."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        console=err,
        transient=True,
    )


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Show rows: a table on a terminal, tab-separated lines with a header in a pipe."""
    if out.is_terminal:
        out.print(_table(title, columns, rows))
        return
    click.echo("\t".join(columns))
    for row in rows:
        click.echo("\t".join(_on_one_line(cell) for cell in row))


def show_list(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Show rows whose cells are to be read and copied whole: ids, names, times.

    As `show_table` does, but where the terminal is too narrow for the table each row becomes lines
    of its own, its cells named and unbroken.
    """
    table = _table("", columns, rows)
    unbounded = out.options.update_width(_NO_TERMINAL)
    if not out.is_terminal or out.measure(table, options=unbounded).maximum <= out.width:
        show_table("", columns, rows)
        return
    for row in rows:
        click.echo("\n".join(row_lines(columns, row, out.width)))


_NO_TERMINAL = 10_000  # columns; wider than any there is
_JOINED = "\xa0"  # textwrap breaks at other blanks only


def row_lines(columns: Sequence[str], row: Sequence[object], width: int) -> list[str]:
    """Return a row as lines: its first cell, then `column cell` side by side as far as they fit."""
    first, *others = zip(columns, map(_text, row), strict=True)
    told = (f"{column} {text}".replace(" ", _JOINED) for column, text in others if text)
    wrapped = textwrap.wrap(
        "  ".join(told),
        width,
        initial_indent="  ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [first[1], *(line.replace(_JOINED, " ") for line in wrapped)]


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    table = Table(title=title or None, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_text(cell) for cell in row))
    return table


def show_result(result: Mapping[str, Any]) -> None:
    """Show a result for people: what went, why it stopped, what to look at."""
    rows = [result_row(run) for run in result.get("runs") or [result]]
    show_table("", RESULT_COLUMNS, rows)
    for signal, seconds in result.get("waits", {}).items():
        click.echo(f"stopped or slowed down for {signal}: {seconds:.1f} s", err=True)
    for told in _to_heed(result):
        click.secho(told, fg="yellow", err=True)
    if result.get("error"):
        click.secho(f"error: {result['error']}", fg="red", err=True)
    for run in result.get("runs") or [result]:
        if run.get("tables"):
            show_table("", TABLE_COLUMNS, [table_row(entry) for entry in run["tables"]])
        if run.get("plan"):
            for line in plan_lines(run["plan"]):
                click.echo(line)


def _to_heed(result: Mapping[str, Any]) -> Iterator[str]:
    runs = result.get("runs") or [result]
    for task in dict.fromkeys(r["operation"] for r in runs if r["stop_reason"] == "paused"):
        yield (
            f"{task} is paused: `housekeeping resume {task}` lets it run, or "
            "`housekeeping resume` where everything was paused"
        )
    for run in runs:
        if run["stop_reason"] == "locked":
            yield f"{run['policy']}: another run works on its table; `housekeeping history` shows it"
    yield from (f"warning: {warning}" for warning in result["warnings"])


RESULT_COLUMNS = ("operation", "policy", "stopped", "rows", "details", "batches", "seconds")


def result_row(run: Mapping[str, Any]) -> list[object]:
    """Return a result as a row of a table."""
    plan = run.get("plan")
    details = plan["details"] if plan else run["details"]
    total = next(value for key, value in run.items() if key.startswith("total_"))
    rows = _planned(plan) if plan else f"{total:,}"
    told = ", ".join(f"{reason} {count:,}" for reason, count in details.items() if count)
    stopped = run["stop_reason"] + ("" if run["success"] else " (not all done)")
    return [
        run["operation"], run["policy"], stopped, rows, told, run["batches"], f"{run['seconds']:.2f}",
    ]  # fmt: skip


def _planned(plan: Mapping[str, Any]) -> str:
    verb, rows = next((key, n) for key, n in plan.items() if key.startswith("would_"))
    known = {"estimate": "about ", "partly": "at least ", "at_most": "at most "}
    about = known.get(plan.get("counted", ""), "")
    return f"{verb.replace('_', ' ')} {about}{rows:,}"


TABLE_COLUMNS = ("table", "done", "figures", "why")


def table_row(entry: Mapping[str, Any]) -> list[object]:
    """Return a result's entry for one table as a row: what was done, its figures, and why."""
    figures = [told for key, value in entry.items() if (told := _figure(entry, key, value))]
    actions = entry.get("actions", ())
    why = [f"{each['work']} {each['outcome']}: {_reason(each)}" for each in actions]
    why += [str(entry[key]) for key in ("why", "note", "error") if entry.get(key)]
    return [entry["table"], entry.get("done"), figures, why]


def _figure(entry: Mapping[str, Any], key: str, value: object) -> str:
    if not isinstance(value, int):
        return ""
    if not key.endswith("_before"):
        return "" if key.endswith("_after") else f"{key} {value:,}"
    name = key.removesuffix("_before")
    after = entry.get(f"{name}_after")
    return f"{name} {value:,}" if after is None else f"{name} {value:,} to {after:,}"


def _reason(action: Mapping[str, Any]) -> str:
    return f"{action['reason']} ({action['told']})" if action.get("told") else str(action["reason"])


def _text(cell: object) -> str:
    if isinstance(cell, list):
        return "\n".join(cell)
    return "" if cell is None else str(cell)


def _on_one_line(cell: object) -> str:
    # The lines of a message are wrapped sentences; those of a list are its entries.
    return " ".join(("; ".join(cell) if isinstance(cell, list) else _text(cell)).split())
