"""Refuse before harm: everything a policy names is looked up before a row is touched."""

from dataclasses import dataclass, field

from sqlalchemy import Connection

from housekeeping.policies.errors import PolicyRefused
from housekeeping.policies.purge import Age, ExpiryRule, PurgePolicy
from housekeeping.stores.postgres.archive_layout import ArchiveLayout, layout_of
from housekeeping.stores.postgres.archive_tables import refuse_changed
from housekeeping.stores.postgres.catalog import (
    ForeignKey,
    TableFacts,
    describe_table,
)
from housekeeping.stores.postgres.cutoffs import AgeType
from housekeeping.stores.postgres.held_relatives import HeldRelative, held_relatives
from housekeeping.stores.postgres.holds import Holds, StandingHold, holds_on_database, holds_over
from housekeeping.stores.postgres.lookup import (
    age_on,
    age_type_on,
    check_expression,
    rule_on,
    table_called,
)
from housekeeping.stores.postgres.names import (
    clipped,
    quoted,
)
from housekeeping.stores.postgres.newest import Newest, newest_on
from housekeeping.stores.postgres.predicate import Keeper
from housekeeping.stores.postgres.refusals import (
    PARTITIONED,
    refuse_harm,
    refuse_hidden,
    refuse_unindexed,
)
from housekeeping.stores.postgres.relatives import (
    Child,
    children_of,
    forbidding_keys,
    implied_keeper,
    keeper_called,
)
from housekeeping.stores.postgres.timescale import Hypertable, hypertable


@dataclass(frozen=True, kw_only=True)
class Target:
    """A policy whose every name was found on the database it points at."""

    policy: PurgePolicy
    facts: TableFacts
    age: Age
    age_type: AgeType
    rules: tuple[ExpiryRule, ...]
    children: tuple[Child, ...]
    keepers: tuple[Keeper, ...]
    warnings: tuple[str, ...]
    layout: ArchiveLayout | None = None
    """where rows move to; None: they are deleted"""
    chunks: Hypertable | None = None
    """what TimescaleDB knows of it"""
    newest: Newest | None = None
    holding: tuple[StandingHold | HeldRelative, ...] = ()
    """holds on the table's own rows, and on rows that would go along with them"""
    holds: Holds = field(default_factory=Holds)
    """every hold on the database"""

    @property
    def partitioned(self) -> bool:
        return self.facts.kind == PARTITIONED

    @property
    def in_parts(self) -> bool:
        """Whether whole parts of it may go: partitions, or chunks."""
        return self.partitioned or self.chunks is not None

    @property
    def tables(self) -> tuple[int, ...]:
        """Oids of the tables a run takes rows from."""
        return (self.facts.oid, *(child.foreign_key.child_oid for child in self.children))

    @property
    def keeps(self) -> bool:
        """Whether other rows decide about a row: it is looked at again once it is locked."""
        relatives = any(isinstance(each, HeldRelative) for each in self.holding)
        return bool(self.keepers or self.newest or relatives)

    @property
    def holds_told(self) -> tuple[str, ...]:
        """Return the holds that keep rows of the table, or rows that would go along, for people."""
        holds = [
            hold
            for each in self.holding
            for hold in (each.holds if isinstance(each, HeldRelative) else (each,))
        ]
        told = (f"{hold.label} on {hold.facts.label}: {hold.reason}" for hold in holds)
        return tuple(dict.fromkeys(told))

    @property
    def pins(self) -> bool:
        """Whether rows have to be locked before they go."""
        return bool(self.children) or self.keeps


def resolve(connection: Connection, policy: PurgePolicy) -> Target:
    """Look up what a policy names and refuse what would harm; inside a reading transaction.

    Raises the PolicyRefused that fits; each says what to do.
    """
    target = target_on(connection, policy, table_called(connection, policy, policy.table))
    if policy.partitions.export is not None and not target.partitioned:
        raise PolicyRefused(
            f"{policy.name}: {target.facts.label} has no partitions that could be detached and exported "
            "before they are dropped; its rows would go without. Leave partition_export_to out"
        )
    return target


def target_on(connection: Connection, policy: PurgePolicy, facts: TableFacts) -> Target:
    """Look up what a policy names on one table: the one it names, or a partition of that."""
    chunks = hypertable(connection, facts) if facts.has_children else None
    refuse_harm(connection, policy, facts, chunked=chunks is not None)
    age = age_on(policy, facts)
    age_type = age_type_on(connection, policy, facts, age)
    rules = tuple(rule_on(connection, policy, facts, rule) for rule in policy.rules)
    if policy.where is not None:
        check_expression(connection, policy, facts, "where", policy.where)
    declared = [
        k for k in (keeper_called(connection, policy, facts, k) for k in policy.kept_by) if k
    ]
    implied = [implied_keeper(connection, policy, facts, fk) for fk in forbidding_keys(facts)]
    holds = holds_on_database(connection, policy)
    relatives = held_relatives(connection, policy, facts, holds)
    keeping = {keeper.facts.oid for keeper in declared}
    keeping |= {relative.keys[0].child_oid for relative in relatives}
    children = children_of(policy, facts, keeping)
    for child in children:
        # We delete them by name, and bound how many; a cascade alone would need no privilege.
        needed = ("SELECT", "UPDATE", "DELETE") if child.keeps else ("SELECT", "DELETE")
        refuse_hidden(policy, describe_table(connection, child.foreign_key.child_oid), needed)
        refuse_unindexed(connection, policy, child.foreign_key.child_oid, 1)
    if facts.before_delete_triggers and children:
        # The children would be gone before the trigger has kept their row.
        raise PolicyRefused(
            f"{policy.name}: trigger {facts.before_delete_triggers[0]} may keep rows of {facts.label}, "
            f"while their rows in {children[0].foreign_key.child} would already be deleted. Disable "
            "the trigger, or say in `where` what it keeps and drop it"
        )
    layout = layout_of(connection, policy, facts, children)
    if layout is not None:
        refuse_changed(connection, policy.name, layout)
    return Target(
        policy=policy,
        facts=facts,
        age=age,
        age_type=age_type,
        rules=rules,
        children=children,
        keepers=(*declared, *implied),
        warnings=tuple(_warnings(policy, facts)),
        layout=layout,
        chunks=chunks,
        newest=newest_on(connection, policy, facts, age),
        holding=(*holds_over(connection, policy, facts, holds), *relatives),
        holds=holds,
    )


def _warnings(policy: PurgePolicy, facts: TableFacts) -> list[str]:
    warnings = []
    if facts.rows < 0 and facts.kind != PARTITIONED:  # autovacuum never analyzes one of these
        warnings.append(
            f"{facts.label} was never analyzed, so estimates are guesses: run ANALYZE "
            f"{quoted(facts.schema, facts.name)}"
        )
    if facts.delete_triggers:
        names = ", ".join(facts.delete_triggers)
        warnings.append(f"trigger {names} on {facts.label} fires for every deleted row")
    warnings += [told for key in facts.foreign_keys if (told := _effect_of(key, facts))]
    for name in (policy.table.name, *policy.age.columns):
        if clipped(name) != name:
            warnings.append(f"PostgreSQL keeps 63 bytes of a name: {name!r} is {clipped(name)!r}")
    return warnings


def _effect_of(key: ForeignKey, facts: TableFacts) -> str | None:
    child = f"{key.child_schema}.{key.child}"
    if key.on_delete in "nd":
        return f"rows of {child} are updated when their {facts.name} row goes"
    if key.forbids:
        return f"rows that {child} refers to ({key.name}) are kept"
    if key.references_itself(facts.oid):
        return f"rows that other rows of {facts.label} refer to ({key.name}) are kept"
    return None
