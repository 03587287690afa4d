"""Tables that refer to the purged one: whose rows go with its rows, and whose rows keep them."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from housekeeping.policies.errors import (
    AgeTypeRefused,
    PolicyRefused,
)
from housekeeping.policies.purge import KeptBy, PurgePolicy, TableName, YoungerThan
from housekeeping.stores.postgres.catalog import (
    ForeignKey,
    TableFacts,
    describe_table,
    find_table,
)
from housekeeping.stores.postgres.cutoffs import AgeType, base_type
from housekeeping.stores.postgres.lookup import (
    column_called,
    table_called,
)
from housekeeping.stores.postgres.predicate import Keeper
from housekeeping.stores.postgres.refusals import refuse_hidden


@dataclass(frozen=True, kw_only=True)
class Child:
    """A table whose rows go with the purged table's, by ON DELETE CASCADE."""

    key: str
    """in the result's details"""
    foreign_key: ForeignKey
    keeps: bool
    """its rows may keep their parent as well, and may come to do so while we look"""


def children_of(
    policy: PurgePolicy, facts: TableFacts, keeping: Collection[int]
) -> tuple[Child, ...]:
    """Cascading children; a table that refers to itself is a matter of keepers, not of children.

    `keeping`: oids of tables whose rows may keep their parent.
    """
    names, reasons = dict(policy.child_names), {rule.reason for rule in policy.rules}
    return tuple(
        Child(
            key=names.get(
                key.child, key.child if key.child not in reasons else f"rows of {key.child}"
            ),
            foreign_key=key,
            keeps=key.child_oid in keeping,
        )
        for key in facts.foreign_keys
        if key.cascades and not key.references_itself(facts.oid)
    )


def forbidding_keys(facts: TableFacts) -> list[ForeignKey]:
    """Keys whose rows must keep their parent: NO ACTION and RESTRICT, and any key to itself.

    A cascade within one table would carry an expired parent's young children away.
    """
    return [
        key
        for key in facts.foreign_keys
        if key.forbids or (key.references_itself(facts.oid) and key.cascades)
    ]


def implied_keeper(
    connection: Connection, policy: PurgePolicy, facts: TableFacts, key: ForeignKey
) -> Keeper:
    if len(key.columns) > 1:
        raise PolicyRefused(
            f"{policy.name}: {key.child_schema}.{key.child} refers to the table by {key.name} over "
            f"{len(key.columns)} columns without ON DELETE CASCADE; rows it refers to can't go. "
            "Delete its rows first, or declare the key ON DELETE CASCADE"
        )
    kept_by = KeptBy(table=key.child, column=key.columns[0], refers_to=key.parent_columns[0])
    keeper = describe_table(connection, key.child_oid)
    refuse_hidden(policy, keeper, ("SELECT",))
    return Keeper(facts=keeper, kept_by=kept_by, not_itself=key.references_itself(facts.oid))


def keeper_called(
    connection: Connection, policy: PurgePolicy, facts: TableFacts, kept_by: KeptBy
) -> Keeper | None:
    """Look a declared keeper up; None where this generation of the schema does not have it."""
    name = TableName(kept_by.table, policy.table.schema)
    absent = find_table(connection, name) is None or kept_by.refers_to not in facts.columns
    if absent and kept_by.optional:
        return None
    keeper = table_called(connection, policy, name)
    refuse_hidden(policy, keeper, ("SELECT",))
    conditions = tuple(
        replace(condition, column=column_called(policy, keeper, condition.column))
        for condition in kept_by.while_any
    )
    kept_by = replace(
        kept_by,
        refers_to=column_called(policy, facts, kept_by.refers_to),
        column=column_called(policy, keeper, kept_by.column),
        while_any=conditions,
    )
    ages = {}
    for condition in conditions:
        if isinstance(condition, YoungerThan):
            declared = keeper.columns[condition.column]
            ages[condition.column] = kind = AgeType(base_type(declared), None, "UTC")
            if not kind.supported:
                raise AgeTypeRefused(
                    policy=policy.name,
                    table=keeper.label,
                    expression=condition.column,
                    type=declared,
                )
    return Keeper(facts=keeper, kept_by=kept_by, ages=ages)
