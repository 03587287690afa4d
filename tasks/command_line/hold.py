"""`housekeeping hold`: rows nobody may remove, placed, listed and released."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from tasks.command_line.console import show_list
from tasks.command_line.databases import (
    DATABASE_HELP,
    databases_called,
    known_databases,
    only_one,
)

if TYPE_CHECKING:
    from housekeeping.policies.table import TableName

_COLUMNS = ("hold", "database", "table", "where", "reason", "placed by", "placed", "released")
_DATABASE = click.option(
    "--database", metavar="NAME|URL", help=f"{DATABASE_HELP} Needed where it could be several."
)


@click.group()
def hold() -> None:
    """Legal holds: rows that stay whatever a policy says, for every run on their database."""


@hold.command("place")
@click.argument("table")
@click.option("--where", required=True, help="SQL expression, true for held rows; `true` for all.")
@click.option("--reason", required=True, help="Why, such as the number of the case.")
@_DATABASE
@click.option("--json", "as_json", is_flag=True, help="Print the hold as one JSON object.")
def place(table: str, where: str, reason: str, database: str | None, *, as_json: bool) -> None:
    """Hold rows of TABLE. Runs under way honour it from this moment on."""
    from housekeeping.operations.holds import place_hold  # noqa: PLC0415 - not for --help
    from housekeeping.policies.table import TableName  # noqa: PLC0415
    from tasks.running import run_by  # noqa: PLC0415

    name = TableName(table)
    told, url = _database_of(name, database)
    placed = place_hold(url, name, where, reason, run_by())
    if as_json:
        click.echo(json.dumps({**asdict(placed), "database": told}))
        return
    rows = "its rows could not be counted in time"
    if placed.held_rows is not None:
        rows = f"{placed.held_rows:,} rows are held now"
    click.echo(f"hold {placed.id} placed on {placed.table} in {told}: {rows}")


@hold.command("list")
@click.option("--all", "everything", is_flag=True, help="Released ones too.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def list_holds(*, everything: bool, as_json: bool) -> None:
    """Show the holds of the settings and those placed in each database."""
    rows = [*_configured(), *_placed(released=everything)]
    if as_json:
        click.echo(json.dumps(rows))
    else:
        show_list(_COLUMNS, [[row[column] for column in _COLUMNS] for row in rows])


@hold.command("release")
@click.argument("number", type=click.IntRange(min=1), metavar="ID")
@_DATABASE
def release(number: int, database: str | None) -> None:
    """Release the hold numbered ID. Its row stays, with who released it and when."""
    from housekeeping.operations.holds import holds_in, release_hold  # noqa: PLC0415
    from tasks.running import run_by  # noqa: PLC0415

    having = {
        told: url
        for told, url in _databases(database).items()
        if number in {hold.id for hold in holds_in(url)}
    }
    told, url = only_one(
        having, f"no hold {number} is in force; `housekeeping hold list` shows them"
    )
    if release_hold(url, number, run_by()):
        click.echo(f"hold {number} in {told} is released")


def _database_of(table: "TableName", database: str | None) -> tuple[str, str]:
    from housekeeping.operations.holds import has_table  # noqa: PLC0415 - not for --help

    databases = _databases(database)
    if len(databases) == 1:  # says better itself what it has instead
        return next(iter(databases.items()))
    having = {told: url for told, url in databases.items() if has_table(url, table)}
    return only_one(having, f"no database has a table {table}: {', '.join(databases)}")


def _databases(asked: str | None) -> dict[str, str]:
    """Return the databases the settings know, by place, or the one asked for."""
    from tasks.configuration import current_suite  # noqa: PLC0415 - not for --help

    if asked is not None:
        return databases_called(current_suite(), asked)
    if not (known := known_databases(current_suite())):
        raise click.UsageError("the settings name no database: give database_url, or --database")
    return known


def _configured() -> Iterator[dict[str, Any]]:
    from housekeeping.stores.postgres.connection import place as place_of  # noqa: PLC0415
    from tasks.configuration import current_suite  # noqa: PLC0415 - not for --help

    suite = current_suite()
    for name, held in suite.holds.items():
        url = held.database_url or suite.database_url
        told = place_of(url.reveal()) if url else "every one"
        yield _row(name, told, str(held.hold(name).table), held.where, held.reason, "the settings")


def _placed(*, released: bool) -> Iterator[dict[str, Any]]:
    from housekeeping.operations.holds import holds_in  # noqa: PLC0415 - not for --help

    for told, url in _databases(None).items():
        for each in holds_in(url, released=released):
            yield _row(
                each.id, told, each.relation, each.condition, each.reason, each.placed_by,
                _time(each.placed_at), _time(each.released_at),
            )  # fmt: skip


def _row(*cells: object) -> dict[str, Any]:
    filled = [*cells, *([None] * (len(_COLUMNS) - len(cells)))]
    return dict(zip(_COLUMNS, filled, strict=True))


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone().isoformat(timespec="seconds")
