"""Which database a command means: `--database` takes a name the settings know, or an address."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from settings import Suite

DATABASE_HELP = (
    "Its name or host:port/name, as the settings know it, or an address (postgresql://...)."
)


def known_databases(suite: "Suite") -> dict[str, str]:
    """Return the addresses of the databases the settings name, by place."""
    from housekeeping.stores.postgres.connection import place  # noqa: PLC0415 - not for --help

    return {place(url): url for url in suite.target_urls()}


def databases_called(suite: "Suite", asked: str) -> dict[str, str]:
    """Return the addresses `asked` may mean, by place: several where databases share a name.

    Raises click.UsageError where it means none.
    """
    from housekeeping.stores.postgres.connection import place  # noqa: PLC0415 - not for --help
    from settings.addresses import read_database  # noqa: PLC0415

    if "://" in asked:
        try:
            url = read_database(asked).reveal()
        except ValueError as error:
            raise click.UsageError(f"--database {error}") from error
        return {place(url): url}
    known = known_databases(suite)
    found = {told: url for told, url in known.items() if asked in (told, told.rpartition("/")[2])}
    if not found:
        there_are = f"there are: {', '.join(known)}" if known else "the settings name none"
        raise click.UsageError(
            f"no database {asked!r}; {there_are}. Give one of them, or an address such as "
            "postgresql://user@host:5432/name"
        )
    return found


def only_one(databases: dict[str, str], missing: str) -> tuple[str, str]:
    """Return the one database there is, as place and address.

    Raises click.UsageError with `missing` where there is none, and with their places where several.
    """
    if not databases:
        raise click.UsageError(missing)
    if len(databases) > 1:
        raise click.UsageError(f"give --database, one of: {', '.join(databases)}")
    return next(iter(databases.items()))
