"""What a policy names, looked up: its table, its columns, the expressions a user wrote."""

from dataclasses import replace

from psycopg2 import sql
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from housekeeping.policies.errors import (
    AgeTypeRefused,
    ColumnMissing,
    ExpressionRefused,
    PolicyRefused,
    TableMissing,
)
from housekeeping.policies.policy import Policy
from housekeeping.policies.purge import Age, ExpiryRule, PurgePolicy, TableName
from housekeeping.stores.postgres.catalog import (
    TableFacts,
    describe_table,
    find_table,
    table_names,
)
from housekeeping.stores.postgres.conditions import passes, sentence
from housekeeping.stores.postgres.cutoffs import AgeType, base_type
from housekeeping.stores.postgres.names import (
    clipped,
    did_you_mean,
    fault_of_expression,
    qualified,
)
from housekeeping.stores.postgres.statement import Statement, execute, identifier, raw

_TYPE_NAME = Statement("catalog.type_name", sql.SQL("SELECT format_type(%(oid)s, NULL)"))
_ASKED_FOR = {
    "age": "a column's name or an expression such as coalesce(finished_at, created_at)",
    "where": "a condition on its columns such as state <> 'disputed'",
}


def table_called(connection: Connection, policy: Policy, name: TableName) -> TableFacts:
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


def column_called(policy: PurgePolicy, facts: TableFacts, name: str) -> str:
    if (found := clipped(name)) in facts.columns:
        return found
    raise ColumnMissing(
        policy=policy.name,
        table=facts.label,
        column=repr(name),
        suggestion=did_you_mean(name, list(facts.columns)),
    )


def rule_on(
    connection: Connection, policy: PurgePolicy, facts: TableFacts, rule: ExpiryRule
) -> ExpiryRule:
    """Look a rule's column up, and have the server compare it with the rule's value."""
    if rule.column is None:
        return rule
    column = column_called(policy, facts, rule.column)
    body = sql.SQL("SELECT FROM {} WHERE {} = %(value)s LIMIT 0").format(
        facts.identifier, identifier(column)
    )
    try:
        with connection.begin_nested():
            execute(connection, Statement("preflight.value", body), value=rule.value)
    except DBAPIError as error:
        if passes(error):
            raise
        raise PolicyRefused(
            f"{policy.name}: {column} of {facts.label} ({facts.columns[column]}) can't equal "
            f"{rule.value!r}: {sentence(error)}"
        ) from error
    return replace(rule, column=column)


def age_on(policy: PurgePolicy, facts: TableFacts) -> Age:
    age = policy.age
    if age.expression is not None and clipped(age.expression) in facts.columns:
        return replace(age, expression=None, columns=(clipped(age.expression),))
    if age.expression is not None:
        read = qualified(age.expression)
        if read is not None and read[0] is None:
            if read[1] in facts.columns:
                return replace(age, expression=None, columns=(read[1],))
            column_called(policy, facts, age.expression)
        return age
    never_before = age.never_before
    if never_before is not None:
        never_before = column_called(policy, facts, never_before)
    columns = tuple(column_called(policy, facts, column) for column in age.columns)
    return replace(age, columns=columns, never_before=never_before)


def age_type_on(
    connection: Connection, policy: PurgePolicy, facts: TableFacts, age: Age
) -> AgeType:
    if age.expression is not None:
        declared = check_expression(connection, policy, facts, "age", age.expression)
    else:
        declared = facts.columns[age.columns[0]]
    kind = AgeType(base_type(declared), age.unit, age.time_zone)
    shown = age.expression or ", ".join(age.columns)
    if not kind.supported:
        raise AgeTypeRefused(policy=policy.name, table=facts.label, expression=shown, type=declared)
    if age.unit is not None and not kind.counts:
        raise PolicyRefused(
            f"{policy.name}: age_unit = {age.unit!r} is for ages kept as numbers, and {shown} of "
            f"{facts.label} is {declared}; leave age_unit out, or name the column it was meant for"
        )
    return kind


def check_expression(
    connection: Connection, policy: Policy, facts: TableFacts, setting: str, text: str
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
            if passes(error):
                raise
            reason = sentence(error)
        else:
            return str(execute(connection, _TYPE_NAME, oid=type_oid).scalar_one())
    raise ExpressionRefused(
        policy=policy.name,
        setting=setting,
        expression=text,
        table=facts.label,
        reason=reason,
        instead=_ASKED_FOR[setting],
    )
