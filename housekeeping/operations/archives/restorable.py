"""Which archived month or exported partition a user means, and what there is where none is meant."""

import re
from collections.abc import Sequence

from housekeeping.policies.errors import NoSuchArchive
from housekeeping.stores.postgres.archives.known import ArchivedTable
from housekeeping.stores.postgres.exported_partitions import RetiredPartition
from housekeeping.stores.postgres.names import did_you_mean

_MOST_LISTED = 10
_MONTH = re.compile(r"_([0-9]{4}_[0-9]{2}|undated)$")

Known = ArchivedTable | RetiredPartition


def called(name: str, known: Sequence[Known]) -> Known:
    """Return the table a user means: by its label, or by its name where only one has it.

    Raises NoSuchArchive, which lists what can be put back.
    """
    found = [table for table in known if table.relation == name]
    found = found or [table for table in known if table.relation.partition(".")[2] == name]
    if len(found) == 1:
        return found[0]
    if found:
        told = ", ".join(table.relation for table in found)
        raise NoSuchArchive(what=name, reason=f"more than one is called so: {told}")
    raise NoSuchArchive(
        what=name,
        reason="the ledger knows no archived table or dropped partition of that name."
        f"{_what_there_is(name, known)}",
    )


def _what_there_is(name: str, known: Sequence[Known]) -> str:
    """Tell what can be put back: of the table a wrong name speaks of, else of all, newest first."""
    labels = [table.relation for table in known]
    names = [label.partition(".")[2] for label in labels]
    near = did_you_mean(name, labels if "." in name else names)
    there = [table for table in known if _can_come_back(table)]
    if not there:
        return f"{near} Nothing that was archived in this database can be put back"
    meant = [table for table in there if _speaks_of(name, table)]
    of = f" of {meant[0].source}" if meant and len({t.source for t in meant}) == 1 else ""
    listed = sorted(
        meant or there, key=lambda table: (_period(table), table.relation), reverse=True
    )
    told = [t.relation + (" (exported)" if t.dropped_at else "") for t in listed[:_MOST_LISTED]]
    more = (
        f" \N{HORIZONTAL ELLIPSIS} and {len(listed) - len(told):,} more"
        if len(listed) > len(told)
        else ""
    )
    return f"{near} What can be put back{of}: {', '.join(told)}{more}"


def _can_come_back(table: Known) -> bool:
    if isinstance(table, RetiredPartition):
        return table.dropped_at is not None and table.exported is not None
    return table.part_of is None and (table.exported is not None or table.dropped_at is None)


def _period(table: Known) -> str:
    """Return the month in a table's name; a partition's is what its name ends in, if anything."""
    if isinstance(table, RetiredPartition):
        found = _MONTH.search(table.name)
        return found.group(1) if found else ""
    return table.period


def _speaks_of(name: str, table: Known) -> bool:
    """Say whether a name is of a table's month that is not there, or of where its rows came from."""
    bare = name.rpartition(".")[2]
    prefix = table.relation.partition(".")[2].removesuffix(f"_{_period(table)}")
    source = table.source.partition(".")[2]
    return bare in (prefix, source) or _MONTH.sub("", bare) in (prefix, source)
