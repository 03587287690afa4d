"""`[archives.NAME]`, `[milvaion.archive_expiry]`: how long dated tables are kept, and where they go."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer

from housekeeping.policies.archives import ArchiveExpiryPolicy
from housekeeping.policies.purge import PurgePolicy, TableName
from settings.addresses import DatabaseUrl
from settings.durations import KeepFor
from settings.exporting import Compression, ExportUrl, Format, about_export, export_to
from settings.policy_settings import Offer, PolicySettings
from settings.section import Contradiction
from settings.table_name import read_table
from settings.values import Switch

OPERATION = "database.drop_expired_archives"
_OF_SINGLE_ROWS = ("where", "allow_share", "allow_rows", "keep_newest", "keep_newest_per")


class ArchiveExpiry(PolicySettings):
    """How long dated tables are kept. There is no default age: nothing goes unless it is given.

    `keep_for`: counted from the end of a table's month, by the database's clock.
    `undated`: tables of rows without a month go too, that long after their last row came.
    `export_to`: a folder or the URL of an object store; a table is exported there, and the export
    read back, before it goes.
    `format`: parquet, csv or jsonl. `compression`: zstd, snappy, gzip or none for parquet, gzip or
    none for the others; left out, the first of these.
    """

    keep_for: KeepFor
    undated: Switch = False
    export_to: ExportUrl | None = None
    format: Format = "parquet"
    compression: Compression | None = None

    @classmethod
    def contradictions(cls, given: Mapping[str, Any]) -> Iterator[Contradiction]:
        """Tell what is missing, and which keys can't stand together."""
        if given.get("keep_for") is None:
            yield (
                ("keep_for",),
                'missing: say how long after its month\'s end a table is kept, such as "365d"; '
                "there is no default, as what is dropped is gone",
            )
        for key in _OF_SINGLE_ROWS:
            if given.get(key) is not None:
                yield (key,), "can't be met: whole months go; leave it out"
        yield from about_export(given)

    def expiry(
        self,
        name: str,
        database_url: str,
        lease_ttl: timedelta,
        source: TableName | None,
        but: tuple[TableName, ...] = (),
        archived_after: timedelta | None = None,
    ) -> ArchiveExpiryPolicy:
        """Return what the engine runs."""
        return ArchiveExpiryPolicy(
            operation=OPERATION,
            name=name,
            database_url=database_url,
            keep_for=self.keep_for,
            source=source,
            but=but,
            undated=self.undated,
            export=export_to(self.export_to, self.format, self.compression),
            archived_after=archived_after,
            pace=self.pace(lease_ttl),
        )


class ArchivesPolicy(ArchiveExpiry):
    """`[archives.NAME]`: of one archived table, or of all of a database that no other section names.

    `database_url`: left out, the one for all systems.
    `source`: the archived table's name, or a list of schema and name. `all`: true for all.
    """

    database_url: DatabaseUrl | None = None
    source: Annotated[
        TableName | None,
        BeforeValidator(lambda value: None if value is None else read_table(value)),
        PlainSerializer(lambda name: None if name is None else str(name)),
    ] = None
    every: Switch = Field(default=False, alias="all")

    @classmethod
    def contradictions(cls, given: Mapping[str, Any]) -> Iterator[Contradiction]:
        yield from super().contradictions(given)
        named, every = given.get("source") is not None, given.get("all", False)
        if not named and every in (False, None, "false", "no", "off", "0"):
            yield (
                ("source",),
                "missing: name the table whose archives these are, or give all = true",
            )
        elif named and every not in (False, None, "false", "no", "off", "0"):
            yield ("all",), "can't stand beside source; keep one of the two"


@dataclass(frozen=True)
class Expiry:
    """A section that says how long archives are kept, and whose."""

    name: str
    section: ArchiveExpiry
    database_url: str
    source: TableName | None
    """None: all of the database that no other section names"""


def offers(
    expiries: Sequence[Expiry], others: Sequence[Offer], lease_ttl: timedelta
) -> Iterator[Offer]:
    """Tell the policies of all sections; `others`: what deletes and moves rows."""
    archiving = [
        offer.policy
        for offer in others
        if isinstance(offer.policy, PurgePolicy) and offer.settings.enabled and offer.scheduled
    ]
    for one in expiries:
        url, source = one.database_url, one.source
        named = [each.source for each in expiries if each.source and each.database_url == url]
        but = tuple(named) if source is None else ()
        after = _archived_after(url, archiving, source, but)
        yield Offer(one.section, one.section.expiry(one.name, url, lease_ttl, source, but, after))


def _archived_after(
    database_url: str,
    archiving: Sequence[PurgePolicy],
    source: TableName | None,
    but: tuple[TableName, ...],
) -> timedelta | None:
    """Return the age at which the last rows of a month come to its dated table."""
    ages = [
        rule.keep_for
        for policy in archiving
        if policy.archive is not None and policy.archive.month_of == "row"
        if policy.database_url == database_url
        if source is None or source.name == policy.table.name
        if policy.table.name not in [table.name for table in but]
        for rule in policy.rules
    ]
    return max(ages, default=None)
