"""`[maintenance.NAME]` and `[milvaion.maintenance]`."""

from datetime import timedelta

import pytest

from housekeeping.policies.errors import ConfigurationRefused
from housekeeping.policies.maintenance import (
    AnalyzeLimits,
    MaintenancePolicy,
    ReindexLimits,
    VacuumLimits,
    When,
)
from housekeeping.policies.pace import Pace
from housekeeping.policies.purge import PurgePolicy, TableName
from settings.sizes import format_size, parse_size
from tests.unit.settings.conftest import REQUIRED, Load

GIB = 2**30


def maintained(load: Load, text: str, name: str | None = None) -> MaintenancePolicy:
    (policy,) = load(text).policies("database.maintain", name)
    assert isinstance(policy, MaintenancePolicy)
    return policy


def test_an_empty_section_maintains_all_tables_by_the_engines_defaults(load: Load) -> None:
    policy = maintained(load, REQUIRED + "[maintenance.app]\n")

    assert policy == MaintenancePolicy(
        operation="database.maintain",
        name="app",
        database_url="postgresql://me@db/jobs",
        pace=Pace(time_budget=timedelta(hours=2)),
    )
    assert policy.vacuum_limits == VacuumLimits()
    assert policy.analyze_limits == AnalyzeLimits()
    assert policy.reindex_limits == ReindexLimits()


def test_everything_can_be_said(load: Load) -> None:
    policy = maintained(
        load,
        REQUIRED
        + """
        [maintenance.app]
        database_url = "postgresql://other/app"
        schema = "app"
        tables = ["jobs", ["log", "events"]]
        vacuum = "always"
        analyze = true
        reindex = false
        dead_rows = 5
        dead_share = 0.5
        min_index_size = "1GB"
        disk_size = "2 TB"
        patience = "1s"
        """,
    )
    assert policy.database_url == "postgresql://other/app"
    assert policy.tables == (TableName("jobs", "app"), TableName("events", "log"))
    assert (policy.vacuum, policy.analyze, policy.reindex) == (
        When.ALWAYS,
        When.BY_NEED,
        When.NEVER,
    )
    assert (policy.vacuum_limits.dead_rows, policy.vacuum_limits.dead_share) == (5, 0.5)
    assert policy.reindex_limits.min_size == GIB
    assert policy.reindex_limits.disk_size == 2048 * GIB
    assert policy.patience == timedelta(seconds=1)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('vacuum = "sometimes"', 'give "by need" (the same as true), "always" or "never"'),
        ('tables = "jobs"', "give a list of tables"),
        ('min_index_size = "big"', 'give a size above zero such as "256MB"'),
        ("min_index_size = 0", 'give a size above zero such as "256MB"'),
        ("dead_share = 2", "give a number from 0.0001 to 1"),
        ("headroom = 0.5", "give a number from 1 to 100"),
        ("vacuum_cost_limit = 0", "give a whole number from 1 to 10000"),
        ('where = "id = 1"', "unknown key"),
        ("vacum = true", 'did you mean "vacuum"?'),
    ],
)
def test_what_can_not_be_meant_is_refused(load: Load, line: str, told: str) -> None:
    with pytest.raises(ConfigurationRefused) as refused:
        load(REQUIRED + f"[maintenance.app]\n{line}\n")
    assert "maintenance.app." in refused.value.message
    assert told in refused.value.message


def test_a_database_has_to_be_named(load: Load) -> None:
    with pytest.raises(ConfigurationRefused, match=r"maintenance\.app\.database_url: missing"):
        load('redis_url = "redis://cache"\n[maintenance.app]\n')


def test_nothing_is_maintained_unless_a_section_says_so(load: Load) -> None:
    with pytest.raises(ConfigurationRefused, match=r"\[milvaion\] or \[maintenance\.NAME\]"):
        load(REQUIRED).policies("database.maintain")


def test_milvaions_tables_are_those_its_own_job_is_shipped_with(load: Load) -> None:
    policy = maintained(load, REQUIRED + '[milvaion]\nschema = "jobs"\n')

    assert [str(table) for table in policy.tables] == [
        "jobs.JobOccurrences",
        "jobs.JobOccurrenceLogs",
        "jobs.ScheduledJobs",
        "jobs.FailedOccurrences",
        "jobs.WorkflowRuns",
    ]
    assert policy.optional  # older generations lack two of them
    given = maintained(load, REQUIRED + '[milvaion.maintenance]\ntables = ["Audit"]\n')
    assert not given.optional


def test_upstreams_switches_are_by_need(load: Load) -> None:
    config = {"EnableVacuum": "false", "EnableReindex": "true"}
    suite = load(
        REQUIRED,
        {f"MaintenanceConfig__DatabaseMaintenance__{key}": word for key, word in config.items()},
    )
    (policy,) = suite.policies("database.maintain")
    assert isinstance(policy, MaintenancePolicy)

    assert (policy.vacuum, policy.analyze, policy.reindex) == (
        When.NEVER,
        When.BY_NEED,
        When.BY_NEED,
    )
    assert len(policy.tables) == 5
    assert suite.unused_sections() == ()


@pytest.mark.parametrize(
    ("variables", "rows"),
    [
        ({}, 10_000),
        ({"VacuumThreshold": "500"}, 500),
        ({"VacuumThreshold": "0"}, 1),
        ({"VacuumAfterCleanup": "false"}, None),
    ],
)
def test_upstreams_vacuum_after_cleanup_is_kept(
    load: Load, variables: dict[str, str], rows: int | None
) -> None:
    named = {f"MaintenanceConfig__OccurrenceRetention__{key}": v for key, v in variables.items()}
    (policy,) = load(REQUIRED + "[milvaion]\n", named).policies("occurrences.retention")
    assert isinstance(policy, PurgePolicy)
    assert policy.vacuum_after_rows == rows


def test_a_purge_of_any_table_vacuums_only_when_told_to(load: Load) -> None:
    text = REQUIRED + '[tables.x]\ntable = "x"\nage = "at"\nkeep_for = "1d"\n'
    for line, rows in (
        ("", None),
        ("vacuum_after_rows = 7", 7),
        ("vacuum_after_rows = false", None),
    ):
        (policy,) = load(text + line + "\n").policies("tables.purge")
        assert isinstance(policy, PurgePolicy)
        assert policy.vacuum_after_rows == rows
    with pytest.raises(ConfigurationRefused, match="or false for never"):
        load(text + "vacuum_after_rows = 0\n")


@pytest.mark.parametrize(
    ("text", "size"), [("256MB", 256 * 2**20), ("1.5 GB", GIB * 3 // 2), ("8kB", 8192), (17, 17)]
)
def test_sizes_are_read_as_postgresql_counts_and_written_back_exactly(
    text: str | int, size: int
) -> None:
    assert parse_size(text) == size
    assert parse_size(format_size(size)) == size
