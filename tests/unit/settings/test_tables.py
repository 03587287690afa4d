import json
from datetime import timedelta

import pytest

from housekeeping.policies.archives import ExportTo
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


EXPORTING = 'partition_export_to = "s3://kEy:sEcr3t@bucket/events"\n'


def test_a_detached_partition_is_exported_before_it_is_dropped_where_asked_for(load: Load) -> None:
    plain = REQUIRED + '[tables.e]\ntable = "e"\nage = "at"\nkeep_for = "1d"\n' + EXPORTING
    suite = load(plain)
    (policy,) = suite.policies("tables.purge")
    assert isinstance(policy, PurgePolicy)
    assert policy.partitions.export == ExportTo(url="s3://kEy:sEcr3t@bucket/events")
    assert policy.takes_every_old_row
    for text in (json.dumps(suite.describe()), repr(suite), repr(policy), str(policy)):
        assert "sEcr3t" not in text

    (policy,) = load(plain + 'partition_format = "csv"\npartition_compression = "none"\n').policies(
        "tables.purge"
    )
    assert isinstance(policy, PurgePolicy)
    assert policy.partitions.export is not None
    assert (policy.partitions.export.format, policy.partitions.export.compression) == (
        "csv",
        "none",
    )


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (EXPORTING + 'partition_then = "keep"', "partition_export_to: can't stand beside"),
        ('partition_format = "csv"\npartition_then = "keep"', "partition_format: can't stand beside"),
        ('partition_format = "csv"', "partition_format: says how to export, but partition_export_to"),
        ('partition_compression = "gzip"', "partition_compression: says how to export"),
        ('partition_export_to = "backups"', "partition_export_to: is no absolute path"),
        ('partition_export_to = "memory://x"', "partition_export_to: keeps no files"),
        (EXPORTING + 'partition_format = "xml"', "give one of parquet, csv, jsonl"),
        (EXPORTING + 'partition_format = "csv"\npartition_compression = "zstd"',
         "partition_compression: does not go with the format; give one of gzip, none"),
        (EXPORTING + 'where = "x > 1"', "partition_export_to: can't stand beside where"),
        (EXPORTING + "row_budget = 5", "partition_export_to: can't stand beside row_budget"),
        (EXPORTING + "archive = {}", "partition_export_to: can't stand beside archive"),
        ('partition_exprt_to = "/x"', "partition_exprt_to"),
    ],
)  # fmt: skip
def test_an_export_nothing_would_come_of_is_refused(load: Load, given: str, told: str) -> None:
    with pytest.raises(ConfigurationRefused) as refused:
        load(REQUIRED + f'[tables.e]\ntable = "e"\nage = "at"\nkeep_for = "1d"\n{given}\n')
    assert told in refused.value.message.replace("tables.e.", ""), refused.value.message
