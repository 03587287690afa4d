"""A leaf of a partitioned table as a table to be purged: its root's policy, looked up on the leaf."""

from collections.abc import Iterable
from dataclasses import replace

from sqlalchemy import Connection

from housekeeping.policies.errors import PolicyRefused, PrivilegeMissing
from housekeeping.stores.postgres.catalog import describe_table
from housekeeping.stores.postgres.partitions import Partition, PartitionTree
from housekeeping.stores.postgres.preflight import Target, target_on
from housekeeping.stores.postgres.refusals import refuse_self_reference
from housekeeping.stores.postgres.relatives import Child


def leaf_targets(
    connection: Connection, root: Target, tree: PartitionTree, leaves: Iterable[Partition]
) -> tuple[Target, ...]:
    """Return leaves as targets. Raises the PolicyRefused that fits; one for all missing grants."""
    found: list[Target] = []
    missing: list[PrivilegeMissing] = []
    for leaf in leaves:
        try:
            found.append(leaf_target(connection, root, tree, leaf))
        except PrivilegeMissing as refused:
            missing.append(refused)
    if missing:
        asked = {
            "table": ", ".join(str(each.facts["table"]) for each in missing),
            "remedy": ";\n".join(str(each.facts["remedy"]) for each in missing),
        }
        first = missing[0].facts
        raise PrivilegeMissing(
            policy=first["policy"], role=first["role"], privilege=first["privilege"], **asked
        )
    return tuple(found)


def leaf_target(
    connection: Connection, root: Target, tree: PartitionTree, leaf: Partition
) -> Target:
    """Return a leaf as a target of its root's policy; its archived rows go where the root's go.

    Raises the PolicyRefused that fits.
    """
    facts = describe_table(connection, leaf.oid)
    refuse_self_reference(root.policy, facts, set(tree.nodes))
    own = target_on(connection, root.policy, facts)
    if root.layout is None:
        return own
    if [_who(child) for child in own.children] != [_who(child) for child in root.children]:
        raise PolicyRefused(
            f"{root.policy.name}: a foreign key refers to {facts.label} alone and not to "
            f"{root.facts.label}; the archive has no table for those rows. Let it refer to the whole "
            "table, or give the partition's rows a policy that deletes"
        )
    return replace(own, layout=root.layout)


def _who(child: Child) -> tuple[int, tuple[str, ...]]:
    return child.foreign_key.child_oid, child.foreign_key.columns
