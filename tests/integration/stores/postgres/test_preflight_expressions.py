"""Ages, conditions and names that are not what they should be, or try to be more."""

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.policies.errors import (
    AgeTypeRefused,
    ColumnMissing,
    ExpressionRefused,
    PolicyRefused,
    TableMissing,
)
from housekeeping.policies.purge import Age, TableName
from tests.integration.database import Database
from tests.integration.refusals import refused
from tests.integration.runs import policy_on


@pytest.mark.parametrize(
    ("age", "unit"),
    [("note", None), ("id", None), ("id::numeric", "s"), ("interval '1 day'", None)],
)
def test_an_age_that_is_no_moment_is_refused(
    events: Database, around: Surroundings, age: str, unit: str | None
) -> None:
    policy = policy_on(events, age=Age(expression=age, unit=unit))  # type: ignore[arg-type]

    refused(policy, around, AgeTypeRefused)


def test_a_unit_for_an_age_that_is_a_moment_already_is_refused(
    events: Database, around: Surroundings
) -> None:
    policy = policy_on(events, age=Age(columns=("created_at",), unit="ms"))

    refused(policy, around, PolicyRefused, "leave age_unit out")


@pytest.mark.parametrize(
    "text",
    [
        "max(created_at)",
        "lag(created_at) OVER ()",
        "generate_series(created_at, now(), '1 day')",
        "created_at; DROP TABLE events",
        "created_at) FROM events; DROP TABLE events; --",
        "nonsense(created_at)",
    ],
)
def test_an_age_that_is_no_expression_over_one_row_is_refused(
    events: Database, around: Surroundings, text: str
) -> None:
    refused(policy_on(events, age=Age(expression=text)), around, ExpressionRefused)
    assert events.count("events") == 0


@pytest.mark.parametrize(
    "text",
    [
        "true) OR (true",
        "1",
        "note",
        "count(*) > 0",
        "true; DELETE FROM events",
        "true --",
        "no_such",
    ],
)
def test_a_where_that_is_no_condition_on_one_row_is_refused(
    events: Database, around: Surroundings, text: str
) -> None:
    events.run("INSERT INTO events VALUES (1, now() - interval '1 year')")

    told = refused(policy_on(events, where=text), around, ExpressionRefused)
    assert "Give a condition on its columns" in told.message
    assert events.count("events") == 1


@pytest.mark.parametrize(
    "name", ['events"; DROP TABLE events; --', "events' OR '1'='1", "events; SELECT 1"]
)
def test_an_injection_as_a_name_is_no_table(
    events: Database, around: Surroundings, name: str
) -> None:
    refused(policy_on(events, name), around, TableMissing)
    refused(policy_on(events, TableName("events", name)), around, TableMissing)
    refused(policy_on(events, age=Age(columns=(name,))), around, ColumnMissing)
    assert events.count("events") == 0
