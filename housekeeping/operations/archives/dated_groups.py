"""Dated tables that go together: a month of one source, with its child tables' rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from housekeeping.policies.archives import ArchiveExpiryPolicy, month_end
from housekeeping.policies.errors import ArchiveKeptTooShort, TableMissing
from housekeeping.policies.purge import TableName
from housekeeping.stores.postgres.archives.known import ArchivedTable, known_tables, main_sources
from housekeeping.stores.postgres.catalog import describe_table, find_table, table_names
from housekeeping.stores.postgres.names import did_you_mean, qualified


@dataclass(frozen=True)
class Group:
    """A month's tables, in the order they may go: children's before the one they belong to."""

    tables: tuple[ArchivedTable, ...]

    @property
    def main(self) -> ArchivedTable:
        return self.tables[-1]

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables)

    def due(self, policy: ArchiveExpiryPolicy) -> datetime | None:
        """Return when it may go; None is never."""
        end = month_end(self.main.period)
        if end is None and policy.undated:
            end = self.main.last_row_at or self.main.made_at
        return None if end is None else end + policy.keep_for


def groups_of(connection: Connection, source: str) -> list[Group]:
    """Return the dated tables of a source that are still there, oldest month first."""
    groups: dict[str, list[ArchivedTable]] = {}
    for table in known_tables(connection, [source]):
        if table.is_there:
            # Main tables are listed before their parts; the last one in is the first to go.
            groups.setdefault(table.part_of or table.relation, []).insert(0, table)
    return [Group(tuple(tables)) for tables in groups.values()]


def sources_of(connection: Connection, policy: ArchiveExpiryPolicy) -> list[str]:
    """Return the labels of the tables whose archives a policy speaks of.

    Raises TableMissing for a name that neither the database nor the ledger knows.
    """
    known = main_sources(connection)
    if policy.source is None:
        named = {label_of(connection, name, known) for name in policy.but}
        return [label for label in known if label not in named]
    label = label_of(connection, policy.source, known)
    if label is None:
        raise TableMissing(
            policy=policy.name,
            table=str(policy.source),
            database=connection.engine.url.database,
            suggestion=did_you_mean(policy.source.name, table_names(connection)),
        )
    return [label]


def refuse_too_short(policy: ArchiveExpiryPolicy) -> None:
    """Raise ArchiveKeptTooShort where tables would go while their rows still come."""
    after = policy.archived_after
    if after is not None and policy.keep_for <= after:
        raise ArchiveKeptTooShort(
            policy=policy.name, keep_for=policy.keep_for.days, archived_after=after.days
        )


def label_of(connection: Connection, name: TableName, known: Sequence[str]) -> str | None:
    """Return a table's label as the ledger writes it; also of one that is gone, if it is known.

    A name without a schema means a table that is gone only where the ledger knows one of that name.
    """
    oid = find_table(connection, name)
    if oid is not None:
        return describe_table(connection, oid).label
    read = qualified(name.name) if name.schema is None else None
    schema, bare = read if read is not None else (name.schema, name.name)
    if (written := f"{schema}.{bare}") in known:
        return written
    if name.schema is not None:
        return None  # a table of that name in another schema is another table
    bare_names = {name.name} if schema else {name.name, bare}
    meant = [label for label in known if label.partition(".")[2] in bare_names]
    return meant[0] if len(meant) == 1 else None
