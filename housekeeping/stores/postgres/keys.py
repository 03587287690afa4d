"""What an index on a table's age would order rows by."""

from psycopg2 import sql

from housekeeping.policies.purge import ExpiryRule
from housekeeping.stores.postgres.cutoffs import AgeType, base_type
from housekeeping.stores.postgres.predicate import age_expression
from housekeeping.stores.postgres.preflight import Target
from housekeeping.stores.postgres.ranges import Key
from housekeeping.stores.postgres.statement import identifier


def key_of(target: Target, rule: ExpiryRule | None) -> Key:
    """Return the key a rule's rows are walked by; without a rule, all rows' key.

    An age made of several columns is walked by the one that is never later than it, where the
    policy names one: an index serves a column sooner than a coalesce.
    """
    age = target.age
    expression: sql.Composable = age_expression(age)
    if len(age.columns) > 1 and age.never_before is not None:
        expression = identifier(age.never_before)
    kind = key_type(target)
    if rule is None or rule.column is None:
        return Key(expression, kind.name)
    return Key(expression, kind.name, rule.column, rule.value)


def key_column(target: Target) -> str | None:
    """Return the column rows are walked by; None where it is an expression."""
    age = target.age
    if len(age.columns) > 1:
        return age.never_before
    return age.columns[0] if age.columns else None


def key_type(target: Target) -> AgeType:
    """Return the type of the key."""
    age = target.age
    if len(age.columns) > 1 and age.never_before is not None:
        declared = base_type(target.facts.columns[age.never_before])
        return AgeType(declared, age.unit, age.time_zone)
    return target.age_type
