"""`[archives.NAME]`, `[milvaion.archive_expiry]`: how long dated tables are kept, and where they go."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, PlainSerializer

from housekeeping.policies.archives import (
    COMPRESSIONS,
    KEEPS_NOTHING,
    ArchiveExpiryPolicy,
    ExportFormat,
    ExportTo,
)
from housekeeping.policies.purge import PurgePolicy, TableName
from settings.addresses import DatabaseUrl, StoreUrl
from settings.durations import KeepFor
from settings.policy_settings import Offer, PolicySettings
from settings.section import Contradiction
from settings.table_name import read_table
from settings.values import Switch

OPERATION = "database.drop_expired_archives"
_FORMATS = get_args(ExportFormat)
_EXAMPLE = '"/var/backups/archives" or "s3://bucket/archives"'


def _export_url(value: object) -> StoreUrl:
    if isinstance(value, StoreUrl):
        return value
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError(f"give a folder such as {_EXAMPLE}")
    text = value.strip()
    scheme, separator, rest = text.partition("://")
    if not separator and not text.startswith("/"):
        raise ValueError(f"is no absolute path; workers start in other folders. Give {_EXAMPLE}")
    if separator and ("::" in text or scheme.lower() in KEEPS_NOTHING or not rest):
        raise ValueError(
            f"keeps no files: tables dropped after an export would be lost; give {_EXAMPLE}"
        )
    return StoreUrl(text)


def _format(value: object) -> object:
    if value not in _FORMATS:
        raise ValueError(f"give one of {', '.join(_FORMATS)}")
    return value


def _compression(value: object) -> object:
    known = list(dict.fromkeys(name for names in COMPRESSIONS.values() for name in names))
    if value not in known:
        raise ValueError(f"give one of {', '.join(known)}")
    return value


ExportUrl = Annotated[StoreUrl, BeforeValidator(_export_url)]
Format = Annotated[Literal["parquet", "csv", "jsonl"], BeforeValidator(_format)]
Compression = Annotated[str, BeforeValidator(_compression)]


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
        if given.get("export_to") is None:
            for key in ("format", "compression"):
                if given.get(key) is not None:
                    yield (key,), "says how to export, but export_to does not say where; give it"
        accepted = COMPRESSIONS.get(str(given.get("format") or "parquet"))
        compression = given.get("compression")
        if accepted is not None and compression is not None and compression not in accepted:
            yield (
                ("compression",),
                f"does not go with the format; give one of {', '.join(accepted)}",
            )

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
        export = None
        if self.export_to is not None:
            export = ExportTo(
                url=self.export_to.reveal(),
                format=self.format,
                compression=self.compression or "",
            )
        return ArchiveExpiryPolicy(
            operation=OPERATION,
            name=name,
            database_url=database_url,
            keep_for=self.keep_for,
            source=source,
            but=but,
            undated=self.undated,
            export=export,
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
