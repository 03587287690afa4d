"""Refuse before harm: what a policy names is looked up, and what would hurt is told with a remedy."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from psycopg2 import sql
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from housekeeping.policies.errors import (
    AgeTypeRefused,
    ColumnMissing,
    ExpressionRefused,
    NotATable,
    PolicyRefused,
    PrivilegeMissing,
    ReplicaIdentityMissing,
    RowSecurityActive,
    TableMissing,
    UnindexedForeignKey,
)
from housekeeping.policies.purge import Age, ExpiryRule, KeptBy, PurgePolicy, TableName, YoungerThan
from housekeeping.stores.postgres.catalog import (
    ForeignKey,
    TableFacts,
    describe_table,
    find_table,
    foreign_keys,
    table_names,
)
from housekeeping.stores.postgres.conditions import sentence
from housekeeping.stores.postgres.cutoffs import AgeType, base_type
from housekeeping.stores.postgres.names import (
    clipped,
    did_you_mean,
    fault_of_expression,
    qualified,
    quoted,
)
from housekeeping.stores.postgres.predicate import Keeper
from housekeeping.stores.postgres.statement import Statement, execute, identifier, raw

_KINDS = {
    "p": ("a partitioned table", "Give a policy to each of its partitions by their own names."),
    "v": ("a view", "Give the table behind it."),
    "m": ("a materialized view", "It holds a copy; give the table it is made from."),
    "f": ("a foreign table", "Run housekeeping on the server that holds its rows."),
}
_DEEPEST_CASCADE = 8


@dataclass(frozen=True, kw_only=True)
class Child:
    """A table whose rows go with the purged table's, by ON DELETE CASCADE."""

    key: str
    """in the result's details"""
    foreign_key: ForeignKey
    keeps: bool
    """its rows may keep their parent as well, and may come to do so while we look"""


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


def resolve(connection: Connection, policy: PurgePolicy) -> Target:
    """Look up what a policy names and refuse what would harm; inside a reading transaction.

    Raises the PolicyRefused that fits; each says what to do.
    """
    facts = _table(connection, policy, policy.table)
    _refuse_harm(policy, facts)
    age = _age(policy, facts)
    age_type = _age_type(connection, policy, facts, age)
    rules = tuple(_rule(connection, policy, facts, rule) for rule in policy.rules)
    if policy.where is not None:
        _check_expression(connection, policy, facts, "where", policy.where)
    declared = [k for k in (_keeper(connection, policy, facts, k) for k in policy.kept_by) if k]
    implied = [_implied_keeper(connection, policy, facts, fk) for fk in _forbidding(facts)]
    children = _children(policy, facts, declared)
    for child in children:
        # We delete them by name, and bound how many; a cascade alone would need no privilege.
        _refuse_hidden(
            policy, describe_table(connection, child.foreign_key.child_oid), ("SELECT", "DELETE")
        )
        _refuse_unindexed(connection, policy, child.foreign_key.child_oid, 1)
    return Target(
        policy=policy,
        facts=facts,
        age=age,
        age_type=age_type,
        rules=rules,
        children=children,
        keepers=(*declared, *implied),
        warnings=tuple(_warnings(policy, facts)),
    )


def _table(connection: Connection, policy: PurgePolicy, name: TableName) -> TableFacts:
    oid = find_table(connection, name)
    if oid is None:
        names = table_names(connection)
        raise TableMissing(
            policy=policy.name,
            table=str(name),
            database=connection.engine.url.database,
            suggestion=did_you_mean((qualified(name.name) or (None, name.name))[1], names),
        )
    return describe_table(connection, oid)


def _refuse_harm(policy: PurgePolicy, facts: TableFacts) -> None:
    if facts.kind in _KINDS:
        kind, remedy = _KINDS[facts.kind]
        raise NotATable(policy=policy.name, table=facts.label, kind=kind, remedy=remedy)
    if facts.has_children:
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
    _refuse_hidden(policy, facts, ("SELECT", "UPDATE", "DELETE"))
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
    _refuse_unindexed_keys(policy, facts.label, facts.foreign_keys)


def _refuse_hidden(policy: PurgePolicy, facts: TableFacts, needed: tuple[str, ...]) -> None:
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


def _refuse_unindexed_keys(policy: PurgePolicy, parent: str, keys: tuple[ForeignKey, ...]) -> None:
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
            remedy=f"CREATE INDEX CONCURRENTLY ON {quoted(key.child_schema, key.child)} ({columns})",
        )


def _refuse_unindexed(connection: Connection, policy: PurgePolicy, oid: int, depth: int) -> None:
    """Follow cascades down: a child's own children are scanned just as well."""
    keys = tuple(key for key in foreign_keys(connection, oid) if not key.references_itself(oid))
    label = describe_table(connection, oid).label
    _refuse_unindexed_keys(policy, label, keys)
    for key in keys:
        if key.cascades and depth < _DEEPEST_CASCADE:
            _refuse_unindexed(connection, policy, key.child_oid, depth + 1)


def _column(policy: PurgePolicy, facts: TableFacts, name: str) -> str:
    if (found := clipped(name)) in facts.columns:
        return found
    raise ColumnMissing(
        policy=policy.name,
        table=facts.label,
        column=repr(name),
        suggestion=did_you_mean(name, list(facts.columns)),
    )


def _rule(
    connection: Connection, policy: PurgePolicy, facts: TableFacts, rule: ExpiryRule
) -> ExpiryRule:
    """Look a rule's column up, and have the server compare it with the rule's value."""
    if rule.column is None:
        return rule
    column = _column(policy, facts, rule.column)
    body = sql.SQL("SELECT FROM {} WHERE {} = %(value)s LIMIT 0").format(
        facts.identifier, identifier(column)
    )
    try:
        with connection.begin_nested():
            execute(connection, Statement("preflight.value", body), value=rule.value)
    except DBAPIError as error:
        raise PolicyRefused(
            f"{policy.name}: {column} of {facts.label} ({facts.columns[column]}) can't equal "
            f"{rule.value!r}: {sentence(error)}"
        ) from error
    return replace(rule, column=column)


def _age(policy: PurgePolicy, facts: TableFacts) -> Age:
    age = policy.age
    if age.expression is not None and clipped(age.expression) in facts.columns:
        return replace(age, expression=None, columns=(clipped(age.expression),))
    if age.expression is not None:
        read = qualified(age.expression)
        if read is not None and read[0] is None:
            if read[1] in facts.columns:
                return replace(age, expression=None, columns=(read[1],))
            _column(policy, facts, age.expression)
        return age
    never_before = age.never_before
    if never_before is not None:
        never_before = _column(policy, facts, never_before)
    columns = tuple(_column(policy, facts, column) for column in age.columns)
    return replace(age, columns=columns, never_before=never_before)


def _age_type(connection: Connection, policy: PurgePolicy, facts: TableFacts, age: Age) -> AgeType:
    if age.expression is not None:
        declared = _check_expression(connection, policy, facts, "age", age.expression)
    else:
        declared = facts.columns[age.columns[0]]
    kind = AgeType(base_type(declared), age.unit, age.time_zone)
    if not kind.supported:
        shown = age.expression or ", ".join(age.columns)
        raise AgeTypeRefused(policy=policy.name, table=facts.label, expression=shown, type=declared)
    return kind


def _check_expression(
    connection: Connection, policy: PurgePolicy, facts: TableFacts, setting: str, text: str
) -> str:
    """Have the server parse a user's expression over the table, and return its type."""
    reason = fault_of_expression(text)
    # Where an age stands in WHERE too, an aggregate or a window function is no longer an answer.
    shape = "SELECT ({0}) FROM {1} WHERE ({0}) IS NULL LIMIT 0"
    if setting == "where":
        shape = "SELECT true FROM {1} WHERE ({0}) LIMIT 0"
    if reason is None:
        body = sql.SQL(shape).format(sql.SQL("\n{}\n").format(raw(text)), facts.identifier)
        try:
            with connection.begin_nested():
                cursor = execute(connection, Statement("preflight.expression", body)).cursor
                assert cursor is not None
                type_oid = cursor.description[0][1]
        except DBAPIError as error:
            reason = sentence(error)
        else:
            return str(execute(connection, _TYPE_NAME, oid=type_oid).scalar_one())
    raise ExpressionRefused(
        policy=policy.name,
        setting=setting,
        expression=text,
        table=facts.label,
        reason=reason,
    )


_TYPE_NAME = Statement("catalog.type_name", sql.SQL("SELECT format_type(%(oid)s, NULL)"))


def _children(
    policy: PurgePolicy, facts: TableFacts, keepers: Sequence[Keeper]
) -> tuple[Child, ...]:
    """Cascading children; a table that refers to itself is a matter of keepers, not of children."""
    names, reasons = dict(policy.child_names), {rule.reason for rule in policy.rules}
    keeping = {keeper.facts.oid for keeper in keepers}
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


def _forbidding(facts: TableFacts) -> list[ForeignKey]:
    """Keys whose rows must keep their parent: NO ACTION and RESTRICT, and any key to itself.

    A cascade within one table would carry an expired parent's young children away.
    """
    return [
        key
        for key in facts.foreign_keys
        if key.forbids or (key.references_itself(facts.oid) and key.cascades)
    ]


def _implied_keeper(
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
    _refuse_hidden(policy, keeper, ("SELECT",))
    return Keeper(facts=keeper, kept_by=kept_by, not_itself=key.references_itself(facts.oid))


def _keeper(
    connection: Connection, policy: PurgePolicy, facts: TableFacts, kept_by: KeptBy
) -> Keeper | None:
    """Look a declared keeper up; None where this generation of the schema does not have it."""
    name = TableName(kept_by.table, policy.table.schema)
    absent = find_table(connection, name) is None or kept_by.refers_to not in facts.columns
    if absent and kept_by.optional:
        return None
    keeper = _table(connection, policy, name)
    _refuse_hidden(policy, keeper, ("SELECT",))
    conditions = tuple(
        replace(condition, column=_column(policy, keeper, condition.column))
        for condition in kept_by.while_any
    )
    kept_by = replace(
        kept_by,
        refers_to=_column(policy, facts, kept_by.refers_to),
        column=_column(policy, keeper, kept_by.column),
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


def _warnings(policy: PurgePolicy, facts: TableFacts) -> list[str]:
    warnings = []
    if facts.rows < 0:
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
