"""Rows nobody may remove for now, whatever a policy says: a legal hold."""

from dataclasses import dataclass

from housekeeping.policies.table import TableName


@dataclass(frozen=True, kw_only=True)
class Hold:
    """Rows of a table for which an SQL expression is true stay, for every policy.

    Nothing lifts it but taking it away: no key of a policy, no `--yes`.
    """

    name: str
    table: TableName
    where: str
    """an SQL expression over the table; rows for which it is false or null are not held"""
    reason: str
    """why, for people: a case number, a letter"""
