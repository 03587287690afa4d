"""Where archived rows go, as users say it."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from housekeeping.policies.archive import ArchiveIndex, ArchiveTo
from settings.section import Section
from settings.values import Name, read_name


def _month_of(value: object) -> object:
    if value not in ("row", "run"):
        raise ValueError(
            'give "row" (the month of each row\'s age, UTC) or "run" (the month the run is in)'
        )
    return value


def _column_lists(value: object) -> tuple[tuple[str, ...], ...]:
    expected = 'give a list of lists of columns such as [["job_id"], ["status", "created_at"]]'
    lists: list[Any] = list(value) if isinstance(value, list | tuple) else [None]
    if not all(isinstance(columns, list | tuple) and columns for columns in lists):
        raise ValueError(expected)
    return tuple(tuple(read_name(column) for column in columns) for columns in lists)


MonthOf = Annotated[Literal["row", "run"], BeforeValidator(_month_of)]
ColumnLists = Annotated[tuple[tuple[str, ...], ...], BeforeValidator(_column_lists)]


class TableArchive(Section):
    """`[tables.NAME.archive]`: the table's expired rows are moved instead of deleted.

    `prefix`: dated tables are called `PREFIX_2024_01`; left out, the table's name and `_archive`.
    `schema`: where they are made; left out, beside the table.
    `month_of`: "row", the month in UTC of each row's age, or "run".
    `indexes`: lists of columns; built on each dated table once a run has moved all there was.
    """

    prefix: Name | None = None
    schema_name: Name | None = Field(default=None, alias="schema")
    month_of: MonthOf = "row"
    indexes: ColumnLists = ()

    def destination(self, table: str) -> ArchiveTo:
        """Return where rows of `table` go."""
        return ArchiveTo(
            prefix=self.prefix or f"{table}_archive",
            schema=self.schema_name,
            month_of=self.month_of,
            indexes=tuple(ArchiveIndex(columns=columns) for columns in self.indexes),
        )
