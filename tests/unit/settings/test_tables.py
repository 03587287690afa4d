from datetime import timedelta

import pytest

from housekeeping.policies.errors import ConfigurationRefused
from housekeeping.policies.pace import Pace
from housekeeping.policies.purge import Age, ExpiryRule, PartitionCare, PurgePolicy, TableName
from tests.unit.settings.conftest import REQUIRED, Load

NAMES = ['order"s', "a;b", "semi; DROP TABLE x", "ünïcode 表", "x" * 100, " ", "a.b", "1st"]


def test_a_table_becomes_a_policy(load: Load) -> None:
    suite = load(
        REQUIRED
        + """
        [tables.events]
        table = "events"
        schema = "app"
        age = "coalesce(done_at, created_at)"
        age_unit = "ms"
        time_zone = "Europe/Berlin"
        keep_for = "30d"
        where = "kind <> 'audit'"
        duty = 1
        row_budget = 5000
        """
    )
    assert suite.policies("tables.purge") == (
        PurgePolicy(
            operation="tables.purge",
            name="events",
            database_url="postgresql://me@db/jobs",
            table=TableName("events", "app"),
            age=Age(
                expression="coalesce(done_at, created_at)", unit="ms", time_zone="Europe/Berlin"
            ),
            rules=(ExpiryRule(reason="expired", keep_for=timedelta(days=30)),),
            where="kind <> 'audit'",
            pace=Pace(duty=1, row_budget=5000),
        ),
    )


def test_each_listed_status_has_its_own_age(load: Load) -> None:
    suite = load(
        REQUIRED
        + '[tables.e]\ntable = "e"\nage = "at"\nstatus_column = "State"\n'
        + 'statuses = {done = "30d", failed = "90d"}\n'
    )
    (policy,) = suite.policies("tables.purge")
    assert policy.rules == (
        ExpiryRule(reason="done", keep_for=timedelta(days=30), column="State", value="done"),
        ExpiryRule(reason="failed", keep_for=timedelta(days=90), column="State", value="failed"),
    )


def test_a_list_names_schema_and_table(load: Load) -> None:
    suite = load(REQUIRED + '[tables.e]\ntable = ["app", "e.v"]\nage = "at"\nkeep_for = 1\n')
    assert suite.policies("tables.purge")[0].table == TableName("e.v", "app")


def test_its_own_database_wins_over_the_common_one(load: Load) -> None:
    suite = load(
        REQUIRED
        + '[tables.e]\ndatabase_url = "postgres://other/x"\ntable = "e"\nage = "at"\nkeep_for = 1\n'
    )
    assert suite.policies("tables.purge")[0].database_url == "postgresql://other/x"


@pytest.mark.parametrize("name", NAMES)
def test_any_name_a_table_can_have_is_accepted(load: Load, name: str) -> None:
    quoted = '"' + name.replace('"', '\\"') + '"'
    suite = load(
        REQUIRED
        + f'[tables.{quoted}]\ntable = {quoted}\nschema = {quoted}\nage = "at"\n'
        + f'status_column = {quoted}\nstatuses = {{{quoted} = "1d"}}\n'
    )
    (policy,) = suite.policies("tables.purge", name)
    assert policy.table == TableName(name, name)
    assert policy.rules[0].column == policy.rules[0].value == name


def test_defaults_are_the_engines(load: Load) -> None:
    suite = load(REQUIRED + '[tables.e]\ntable = "e"\nage = "at"\nkeep_for = 1\n')
    assert suite.policies("tables.purge")[0].pace == Pace()


@pytest.mark.parametrize(("text", "days"), [("1d", 1), ("36500d", 36_500)])
def test_the_bounds_of_an_age_are_accepted(load: Load, text: str, days: int) -> None:
    suite = load(REQUIRED + f'[tables.e]\ntable = "e"\nage = "at"\nkeep_for = "{text}"\n')
    assert suite.tables["e"].keep_for == timedelta(days=days)


def test_partitions_stay_a_week_after_they_were_detached_and_are_dropped_then(load: Load) -> None:
    plain = '[tables.e]\ntable = "e"\nage = "at"\nkeep_for = "1d"\n'
    (policy,) = load(REQUIRED + plain).policies("tables.purge")
    assert policy.partitions == PartitionCare(grace=timedelta(days=7), then="drop")
    assert isinstance(policy, PurgePolicy)
    assert (
        policy.takes_every_old_row
    )  # no default of the settings keeps whole partitions from going

    own = 'partition_grace = "36h"\npartition_then = "keep"\n'
    (policy,) = load(REQUIRED + plain + own).policies("tables.purge")
    assert policy.partitions == PartitionCare(grace=timedelta(hours=36), then="keep")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ('partition_then = "export"', 'give "drop", or "keep"'),
        ("partition_then = true", 'give "drop", or "keep"'),
        ('partition_grace = "-1d"', "can't be negative"),
        ('partition_grace = "soon"', "give a number and a unit"),
        ('partition_gracee = "1d"', "partition_grace"),
    ],
)
def test_what_a_partition_can_not_become_is_refused(load: Load, given: str, told: str) -> None:
    with pytest.raises(ConfigurationRefused, match=told):
        load(REQUIRED + f'[tables.e]\ntable = "e"\nage = "at"\nkeep_for = "1d"\n{given}\n')
