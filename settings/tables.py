"""`[tables.NAME]`: delete or archive what has expired in any table a user describes."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from housekeeping.policies.purge import Age, ExpiryRule, PartitionCare, PurgePolicy, TableName
from settings.addresses import DatabaseUrl
from settings.archive import TableArchive
from settings.durations import Duration, KeepFor
from settings.exporting import Compression, ExportUrl, Format, about_export, export_to
from settings.hours import TimeZone
from settings.policy_settings import PolicySettings
from settings.section import Contradiction
from settings.table_name import Table
from settings.values import Expression, Name

PURGE = "tables.purge"
ARCHIVE = "tables.archive"
_EXPORT = ("partition_export_to", "partition_format", "partition_compression")
# Under each of these no partition goes whole.
_ROW_BY_ROW = ("statuses", "where", "keep_newest", "row_budget", "archive")


def _age_unit(value: object) -> object:
    if value not in ("s", "ms", "us", None):
        raise ValueError('give "s", "ms" or "us": what an integer age counts since 1970')
    return value


def _partition_then(value: object) -> object:
    if value not in ("drop", "keep"):
        raise ValueError('give "drop", or "keep" to leave detached partitions in the database')
    return value


class TablePolicy(PolicySettings):
    """Which rows of one table expire. Either all rows by age, or each status by its own age.

    `database_url`: the table's database; left out, the one for all systems.
    `table`: its name as it stands in the catalog, or a list of schema and name.
    `age`: the column or SQL expression that says when a row's life began to count.
    `age_unit`: what an integer age counts since 1970.
    `time_zone`: where the clock of a timestamp without time zone hangs.
    `keep_for`: how long any row is kept.
    `status_column`, `statuses`: only rows with a listed status expire, each after its own age.
    `archive`: expired rows move to dated tables instead; `{}` does so with its defaults.
    `partition_grace`: how long a partition that was detached whole stays in the database, 0s to 36500d.
    `partition_then`: "drop" it when that is over, or "keep" it for good.
    `partition_export_to`: a folder or the URL of an object store; a partition is exported there, and
    the export read back, before it is dropped. Then rows go with their whole partition only.
    `partition_format`: parquet, csv or jsonl. `partition_compression`: zstd, snappy, gzip or none for
    parquet, gzip or none for the others; left out, the first of these.
    """

    database_url: DatabaseUrl | None = None
    table: Table
    schema_name: Name | None = Field(default=None, alias="schema")
    age: Expression
    age_unit: Annotated[Literal["s", "ms", "us"] | None, BeforeValidator(_age_unit)] = None
    time_zone: TimeZone = "UTC"
    keep_for: KeepFor | None = None
    status_column: Name | None = None
    statuses: dict[Name, KeepFor] | None = None
    archive: TableArchive | None = None
    partition_grace: Duration = timedelta(days=7)
    partition_then: Annotated[Literal["drop", "keep"], BeforeValidator(_partition_then)] = "drop"
    partition_export_to: ExportUrl | None = None
    partition_format: Format = "parquet"
    partition_compression: Compression | None = None

    @classmethod
    def contradictions(cls, given: Mapping[str, Any]) -> Iterator[Contradiction]:
        """Tell what is missing, and which keys can't stand together."""
        if "table" not in given:
            yield ("table",), "missing: name the table, or give a list of schema and table"
        if "age" not in given:
            yield ("age",), "missing: give the column or SQL expression a row's age is counted from"
        yield from _about_expiry(given)
        if given.get("schema") is not None and isinstance(given.get("table"), list | tuple):
            yield ("schema",), "is given twice: in the list of table too; keep one of the two"
        yield from _about_partitions(given)
        yield from super().contradictions(given)

    def policy(self, name: str, database_url: str, lease_ttl: timedelta) -> PurgePolicy:
        """Return what the engine runs; `name` is the NAME of `[tables.NAME]`."""
        return PurgePolicy(
            operation=ARCHIVE if self.archive else PURGE,
            name=name,
            database_url=database_url,
            table=TableName(self.table.name, self.table.schema or self.schema_name),
            age=Age(expression=self.age, unit=self.age_unit, time_zone=self.time_zone),
            rules=self._rules(),
            where=self.where,
            archive=self.archive.destination(self.table.name) if self.archive else None,
            partitions=self._partitions(),
            vacuum_after_rows=self.vacuum_after_rows,
            pace=self.pace(lease_ttl),
        )

    def _partitions(self) -> PartitionCare:
        to = export_to(self.partition_export_to, self.partition_format, self.partition_compression)
        return PartitionCare(grace=self.partition_grace, then=self.partition_then, export=to)

    def _rules(self) -> tuple[ExpiryRule, ...]:
        if self.keep_for is not None:
            return (ExpiryRule(reason="expired", keep_for=self.keep_for),)
        return tuple(
            ExpiryRule(reason=status, keep_for=age, column=self.status_column, value=status)
            for status, age in (self.statuses or {}).items()
        )


def _about_expiry(given: Mapping[str, Any]) -> Iterator[Contradiction]:
    asked = {key for key in ("keep_for", "statuses", "status_column") if given.get(key) is not None}
    by_status = asked - {"keep_for"}
    if not asked:
        yield (
            ("keep_for",),
            'missing: give keep_for = "30d" for all rows, or status_column and '
            'statuses = {done = "30d"} for an age per status',
        )
    elif asked != by_status and by_status:
        yield (
            ("keep_for",),
            f"can't stand beside {' and '.join(sorted(by_status))}: with statuses only the "
            "listed ones expire, with keep_for all rows do; keep one of the two",
        )
    elif asked == {"statuses"}:
        yield ("status_column",), "missing: name the column that holds the statuses"
    elif asked == {"status_column"}:
        yield ("statuses",), 'missing: give the ages, such as statuses = {done = "30d"}'
    if given.get("statuses") == {}:
        yield ("statuses",), 'names no status; give one such as {done = "30d"}'


def _about_partitions(given: Mapping[str, Any]) -> Iterator[Contradiction]:
    if given.get("partition_then") == "keep":
        for key in _EXPORT:
            if given.get(key) is not None:
                yield (
                    (key,),
                    'can\'t stand beside partition_then = "keep": partitions are exported before they '
                    "are dropped, and none would ever be; leave one of the two out",
                )
        return
    yield from about_export(given, "partition_")
    if given.get("partition_export_to") is None:
        return
    for key in _ROW_BY_ROW:
        if given.get(key) is not None:
            yield (
                ("partition_export_to",),
                f"can't stand beside {key}: with it no partition goes whole, so none would ever be "
                "exported; leave one of the two out",
            )
