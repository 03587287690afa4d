"""Policies that would take the same rows, so that one leaves the other nothing to do."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

from housekeeping.policies.purge import ExpiryRule, PurgePolicy


@dataclass(frozen=True)
class Conflict:
    """Two policies that fight over rows of one table."""

    loser: PurgePolicy
    """archives or exports, and would find nothing"""
    winner: PurgePolicy
    message: str
    certain: bool
    """False where a `where` of one of them may keep them apart"""


def conflicts(policies: Sequence[tuple[str, PurgePolicy]]) -> Iterator[Conflict]:
    """Yield every archive whose rows another policy takes no later, and every export that another policy
    takes rows past. `policies`: (table, policy), the table told so that two policies on one table say
    the same.
    """
    for (table, archiving), (other_table, other) in permutations(policies, 2):
        if table != other_table or archiving.archive is None:
            continue
        both_archive = other.archive is not None
        if both_archive and (other.operation, other.name) < (archiving.operation, archiving.name):
            continue  # told the other way round
        for own, theirs in _overlapping(archiving, other):
            if theirs.keep_for <= own.keep_for or both_archive:
                yield Conflict(
                    archiving,
                    other,
                    _told(table, archiving, other, own, theirs),
                    certain=archiving.where == other.where,
                )
                break
    yield from _unexported(policies)


def _unexported(policies: Sequence[tuple[str, PurgePolicy]]) -> Iterator[Conflict]:
    """Yield every policy that exports partitions whose rows another one deletes without an export."""
    for (table, exporting), (other_table, other) in permutations(policies, 2):
        if table != other_table or exporting.partitions.export is None:
            continue
        if other.archive is not None or other.partitions.export is not None:
            continue
        for own, theirs in _overlapping(exporting, other):
            told = (
                f"{other.operation} {other.name} deletes rows of {table} ({theirs.reason}) after "
                f"{theirs.keep_for.days} days without an export, and {exporting.operation} "
                f"{exporting.name} is to export its partitions before they are dropped: those rows "
                "would be in no export. Disable one of the two (enabled = false)"
            )
            certain = other.where is None and theirs.keep_for <= own.keep_for
            yield Conflict(exporting, other, told, certain=certain)
            break


def _overlapping(one: PurgePolicy, another: PurgePolicy) -> Iterator[tuple[ExpiryRule, ExpiryRule]]:
    for own in one.rules:
        for theirs in another.rules:
            if own.column != theirs.column or own.column is None or own.value == theirs.value:
                yield own, theirs


def _told(
    table: str, loser: PurgePolicy, winner: PurgePolicy, own: ExpiryRule, theirs: ExpiryRule
) -> str:
    verb = "archives" if winner.archive is not None else "deletes"
    return (
        f"{winner.operation} {winner.name} {verb} rows of {table} ({theirs.reason}) after "
        f"{theirs.keep_for.days} days, and {loser.operation} {loser.name} would archive them "
        f"({own.reason}) after {own.keep_for.days}: nothing would be left. Disable one of the two "
        "(enabled = false), or have rows archived at a younger age than they are deleted"
    )
