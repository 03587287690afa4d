"""What a purge may delete or move away, said in data: which table, what expires when, what keeps it.

Nothing here knows SQL. `stores/postgres` turns it into statements after it has looked the names up
in the catalog, so a wrong name is refused before anything is touched.
"""

from dataclasses import MISSING, dataclass, fields
from datetime import timedelta
from typing import Literal

from housekeeping.policies.archive import ArchiveTo
from housekeeping.policies.archives import ExportTo
from housekeeping.policies.policy import Policy
from housekeeping.policies.table import TableName as TableName  # noqa: PLC0414 - part of a policy's words

AgeUnit = Literal["s", "ms", "us"]

# Fields of a policy that say nothing of which rows go. Any other one that is set, also one that is
# added later, keeps whole partitions from going.
_OF_NO_ROW = {
    *("operation", "name", "database_url", "pace"),
    *("table", "age", "rules", "child_names", "partitions", "vacuum_after_rows"),
    # Counted before a partition goes; and looked up in the database, with those placed there.
    *("allowance", "holds"),
    "doubts",  # only told
}


@dataclass(frozen=True, kw_only=True)
class Age:
    """When a row's life began to count.

    `columns`: the first that is not null is the row's age. `expression`: a column's name or an SQL
    expression, as a user wrote it; exactly one of the two is given.
    `never_before`: a column that is never later than the age in practice; where an index serves it
    and not the age itself, a large table is walked along it.
    """

    columns: tuple[str, ...] = ()
    expression: str | None = None
    never_before: str | None = None
    unit: AgeUnit | None = None
    """what an integer age counts since 1970; needed for integer columns only"""
    time_zone: str = "UTC"
    """where the clock of a `timestamp without time zone` or a `date` hangs"""


@dataclass(frozen=True, kw_only=True)
class ExpiryRule:
    """Rows whose column equals a value expire after an age; without a column, all rows do."""

    reason: str
    """key in the result's details"""
    keep_for: timedelta
    column: str | None = None
    value: str | int | bool | None = None


@dataclass(frozen=True, kw_only=True)
class Equals:
    column: str
    values: tuple[int | str | bool, ...]


@dataclass(frozen=True, kw_only=True)
class YoungerThan:
    column: str
    keep_for: timedelta


@dataclass(frozen=True, kw_only=True)
class KeptBy:
    """A row stays while another table holds a row about it that meets any of the conditions.

    No conditions: any such row keeps it.
    """

    table: str
    column: str
    """of that other table"""
    refers_to: str
    """the purged table's column it is matched with"""
    while_any: tuple[Equals | YoungerThan, ...] = ()
    optional: bool = False
    """generations of the schema without that table or column exist: then nothing is kept by it"""


@dataclass(frozen=True, kw_only=True)
class PartitionCare:
    """What becomes of a partition all of whose rows have expired.

    `grace`: how long it stays in the database after it was taken out of its table.
    `then`: `drop` it when the grace is over, or `keep` it for good.
    `export`: where it is exported to before it is dropped. Then rows go with their whole partition
    or not at all: those that went one by one would be in no export.
    """

    grace: timedelta = timedelta(days=7)
    then: Literal["drop", "keep"] = "drop"
    export: ExportTo | None = None

    def __post_init__(self) -> None:
        if self.then == "keep" and self.export is not None:
            raise ValueError("a partition that is kept is never exported")


@dataclass(frozen=True, kw_only=True)
class KeepNewest:
    """The newest rows of each group stay, whatever their age and whatever the rules say.

    Newest by the policy's age, then by the primary key. Rows without an age never expire and take
    nobody's place.
    """

    rows: int
    per: tuple[str, ...] = ()
    """columns that make a group, NULL being a value like any other; none: the whole table is one"""


@dataclass(frozen=True, kw_only=True)
class PurgePolicy(Policy):
    """Which rows of one table expire, and how gently they go."""

    table: TableName
    age: Age
    rules: tuple[ExpiryRule, ...]
    where: str | None = None
    """an SQL expression every expired row must also meet"""
    kept_by: tuple[KeptBy, ...] = ()
    vacuum_after_rows: int | None = None
    """tables that lost so many rows in a run are vacuumed after it; None: left to autovacuum"""
    keep_newest: KeepNewest | None = None
    child_names: tuple[tuple[str, str], ...] = ()
    """what rows of a referring table are called in details: (table, key)"""
    archive: ArchiveTo | None = None
    """where rows move to; None: they are deleted"""
    partitions: PartitionCare = PartitionCare()

    @property
    def total_key(self) -> str:
        return "total_archived" if self.archive else "total_deleted"

    @property
    def takes_every_old_row(self) -> bool:
        """Whether a row's age alone decides: a partition older than the cutoff may go unread."""
        if len(self.rules) != 1 or self.rules[0].column is not None:
            return False
        return all(
            each.default is not MISSING and getattr(self, each.name) == each.default
            for each in fields(self)
            if each.name not in _OF_NO_ROW
        )

    @property
    def works_on(self) -> str:
        return str(self.table)

    @property
    def detail_keys(self) -> tuple[str, ...]:
        return (*(rule.reason for rule in self.rules), *(key for _, key in self.child_names))
