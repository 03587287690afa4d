"""What would harm, refused with a remedy: privileges, hidden rows, unindexed foreign keys."""

from sqlalchemy import Connection

from housekeeping.policies.errors import (
    NotATable,
    PolicyRefused,
    PrivilegeMissing,
    ReplicaIdentityMissing,
    RowSecurityActive,
    UnindexedForeignKey,
)
from housekeeping.policies.policy import Policy
from housekeeping.policies.purge import PurgePolicy
from housekeeping.stores.postgres.catalog import (
    ForeignKey,
    TableFacts,
    describe_table,
    foreign_keys,
)
from housekeeping.stores.postgres.concurrent_builds import build_line
from housekeeping.stores.postgres.names import quoted

PARTITIONED = "p"
_KINDS = {
    "v": ("a view", "Give the table behind it."),
    "m": ("a materialized view", "It holds a copy; give the table it is made from."),
    "f": ("a foreign table", "Run housekeeping on the server that holds its rows."),
}


_DEEPEST_CASCADE = 8


def refuse_harm(
    connection: Connection, policy: PurgePolicy, facts: TableFacts, *, chunked: bool = False
) -> None:
    """Refuse what would harm. `chunked`: TimescaleDB looks after the tables that inherit from it."""
    if facts.kind in _KINDS:
        kind, remedy = _KINDS[facts.kind]
        raise NotATable(policy=policy.name, table=facts.label, kind=kind, remedy=remedy)
    if facts.has_children and facts.kind != PARTITIONED and not chunked:
        raise NotATable(
            policy=policy.name,
            table=facts.label,
            kind="the parent of inheriting tables",
            remedy="Give a policy to each of the tables that inherit from it.",
        )
    if facts.schema in ("pg_catalog", "information_schema", "housekeeping"):
        raise PolicyRefused(
            f"{policy.name}: {facts.label} belongs to the server or to the ledger; "
            "housekeeping does not delete from it"
        )
    # Rows of a partitioned table go partition by partition, by the rights on each of those.
    held = facts.kind == PARTITIONED
    refuse_hidden(policy, facts, ("SELECT",) if held else ("SELECT", "UPDATE", "DELETE"))
    if facts.delete_rules:
        raise PolicyRefused(
            f"{policy.name}: the rule {facts.delete_rules[0]} rewrites DELETE on {facts.label}, so "
            "what a run deletes can't be known. Drop the rule, or purge the table it leads to"
        )
    if facts.publications_refusing:
        table = quoted(facts.schema, facts.name)
        remedy = f"ALTER TABLE {table} REPLICA IDENTITY FULL, or a primary key"
        publication = facts.publications_refusing[0]
        raise ReplicaIdentityMissing(
            policy=policy.name, publication=publication, table=facts.label, remedy=remedy
        )
    if facts.kind == PARTITIONED:
        refuse_self_reference(policy, facts, {facts.oid})
    _refuse_unindexed_keys(connection, policy, facts.label, facts.foreign_keys)


def refuse_self_reference(policy: PurgePolicy, facts: TableFacts, whole: set[int]) -> None:
    """Refuse a table of a partition tree that another one of the same tree, `whole`, refers to."""
    for key in facts.foreign_keys:
        if key.child_oid in whole:
            raise PolicyRefused(
                f"{policy.name}: {facts.label} is partitioned and refers to itself by {key.name}: a row "
                "in one partition may be needed by one in another, and a run takes one after the "
                "other. Drop that key, or delete its rows by statements of your own"
            )


def refuse_hidden(policy: Policy, facts: TableFacts, needed: tuple[str, ...]) -> None:
    """Refuse a table some of whose rows we could not see, lock or delete."""
    missing = [privilege for privilege in needed if privilege not in facts.privileges]
    if missing:
        # UPDATE: PostgreSQL asks for it to lock a row (FOR UPDATE), which passes over rows in use.
        grant = (
            f"GRANT {', '.join(needed)} ON {quoted(facts.schema, facts.name)}"
            f" TO {quoted(facts.role)}"
        )
        raise PrivilegeMissing(
            policy=policy.name,
            role=facts.role,
            privilege=" or ".join(missing),
            table=facts.label,
            remedy=grant,
        )
    if facts.rows_hidden:
        raise RowSecurityActive(policy=policy.name, table=facts.label, role=quoted(facts.role))


def _refuse_unindexed_keys(
    connection: Connection, policy: PurgePolicy, parent: str, keys: tuple[ForeignKey, ...]
) -> None:
    for key in keys:
        if key.indexed:
            continue
        columns = ", ".join(quoted(column) for column in key.columns)
        raise UnindexedForeignKey(
            policy=policy.name,
            table=policy.table,
            child=f"{key.child_schema}.{key.child}",
            parent=parent,
            constraint=key.name,
            columns=columns,
            remedy=build_line(connection, f"{quoted(key.child_schema, key.child)} ({columns})"),
        )


def refuse_unindexed(connection: Connection, policy: PurgePolicy, oid: int, depth: int) -> None:
    """Follow cascades down: a child's own children are scanned just as well."""
    keys = tuple(key for key in foreign_keys(connection, oid) if not key.references_itself(oid))
    label = describe_table(connection, oid).label
    _refuse_unindexed_keys(connection, policy, label, keys)
    for key in keys:
        if key.cascades and depth < _DEEPEST_CASCADE:
            refuse_unindexed(connection, policy, key.child_oid, depth + 1)
