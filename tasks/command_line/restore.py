"""`housekeeping restore`: an archived month, or an exported partition, back where it came from."""

import json
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from tasks.command_line.console import log_warnings_plainly, progress_lines, show_result
from tasks.command_line.databases import DATABASE_HELP, databases_called, only_one
from tasks.command_line.group import meant

if TYPE_CHECKING:
    from housekeeping.policies.archives import RestorePolicy
    from housekeeping.policies.events import Event
    from settings import Suite

_ENDING = ".manifest.json"
_OF_EXPORTS = (".parquet", ".csv", ".csv.gz", ".jsonl", ".jsonl.gz")


@click.command()
@click.argument("what", metavar="TABLE|MANIFEST")
@click.option("--policy", help="The policy whose database is meant.")
@click.option(
    "--database",
    metavar="NAME|URL",
    help=f"{DATABASE_HELP} Default: the one archives are in.",
)
@click.option(
    "--drop-columns",
    is_flag=True,
    help="Leave out columns the table no longer has. Of rows that leave a dated table, their "
    "values are gone.",
)
@click.option("--dry-run", is_flag=True, help="Look at everything; change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@click.pass_context
def restore(
    ctx: click.Context,
    what: str,
    policy: str | None,
    database: str | None,
    *,
    drop_columns: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Put rows back: of a dated TABLE, such as `events_archive_2024_01`, of a partition that was
    exported before it was dropped, or of an export's MANIFEST, a path or URL that ends in
    `.manifest.json`.

    Rows whose key is taken by now stay where they are. It can be run again until all are back.
    """
    from housekeeping.engine.run import Request  # noqa: PLC0415 - not for --help
    from housekeeping.operations.archives.restore import restore as put_back  # noqa: PLC0415
    from housekeeping.stores.postgres.interruption import install  # noqa: PLC0415
    from tasks.configuration import current_suite  # noqa: PLC0415
    from tasks.progress import progress_of  # noqa: PLC0415
    from tasks.running import run_by, surroundings  # noqa: PLC0415

    suite = current_suite()
    url = _database(suite, policy, database)
    log_warnings_plainly()
    install()  # Ctrl-C ends the statement, here and on the server
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with progress_lines(quiet=as_json) as lines:

        def show(event: "Event") -> None:
            if lines is not None and (progress := progress_of(event)) is not None:
                lines.show(progress)

        request = Request(run_by=run_by(), dry_run=dry_run)
        asked = _policy(suite, what, url, drop_columns=drop_columns)
        result = put_back(asked, request, surroundings((show,)))
    if as_json:
        click.echo(json.dumps(result.as_dict()))
    else:
        show_result(result.as_dict())
    ctx.exit(result.exit_code)


def _policy(suite: "Suite", what: str, url: str, *, drop_columns: bool) -> "RestorePolicy":
    from housekeeping.operations.archives.restore import OPERATION  # noqa: PLC0415 - not for --help
    from housekeeping.policies.archives import ArchiveExpiryPolicy, RestorePolicy  # noqa: PLC0415
    from housekeeping.policies.pace import Pace  # noqa: PLC0415
    from housekeeping.policies.purge import PurgePolicy  # noqa: PLC0415
    from settings.addresses import database_at, without_secrets  # noqa: PLC0415

    if ("://" in what or what.endswith(_OF_EXPORTS)) and not what.endswith(_ENDING):
        raise click.UsageError(
            f"{without_secrets(what)} is no manifest: give the address that ends in {_ENDING}; "
            "it is beside the export"
        )
    is_manifest = what.endswith(_ENDING)
    policies = suite.every_policy()
    places = [p.export for p in policies if isinstance(p, ArchiveExpiryPolicy) and p.export]
    purges = [policy for policy in policies if isinstance(policy, PurgePolicy)]
    places += [p.partitions.export for p in purges if p.partitions.export]
    takers = [
        (policy.table.name, policy.task)
        for policy in purges
        if database_at(policy.database_url) == database_at(url)
    ]
    pace = Pace(lease_ttl=suite.lease_ttl)
    return RestorePolicy(
        operation=OPERATION,
        name="restore",
        database_url=url,
        relation=None if is_manifest else what,
        manifest_url=what if is_manifest else None,
        places=tuple(places),
        drop_columns=drop_columns,
        takers=tuple(dict.fromkeys(takers)),
        pace=replace(pace, health=suite.health.limits()) if suite.health else pace,
    )


def _database(suite: "Suite", policy: str | None, database: str | None) -> str:
    """Return the database that is meant; raises click.UsageError where that is not clear."""
    from housekeeping.stores.postgres.connection import place  # noqa: PLC0415 - not for --help

    if database is not None:
        if policy is not None:
            raise click.UsageError("give one of --policy and --database")
        return only_one(databases_called(suite, database), "")[1]
    archives = {name: url for name, url in _archives(suite) if policy in (None, name)}
    if policy is not None and not archives:
        names = sorted({name for name, _ in _archives(suite)})
        raise click.UsageError(f"no policy {policy!r} archives or exports.{meant(policy, names)}")
    urls = sorted(set(archives.values()))
    if len(urls) == 1:
        return urls[0]
    if suite.database_url is not None and not urls:
        return suite.database_url.reveal()
    if not urls:
        raise click.UsageError("no policy archives anything; name the database with --database")
    told = ", ".join(f"{name} ({place(url)})" for name, url in sorted(archives.items()))
    raise click.UsageError(f"archives are in more than one database; add --policy: {told}")


def _archives(suite: "Suite") -> list[tuple[str, str]]:
    """Return policies that archive, export partitions, or drop archives, each with its database."""
    from housekeeping.policies.archives import ArchiveExpiryPolicy  # noqa: PLC0415 - not for --help
    from housekeeping.policies.purge import PurgePolicy  # noqa: PLC0415

    return [
        (policy.name, policy.database_url)
        for policy in suite.every_policy()
        if isinstance(policy, ArchiveExpiryPolicy)
        or (
            isinstance(policy, PurgePolicy)
            and (policy.archive is not None or policy.partitions.export is not None)
        )
    ]
