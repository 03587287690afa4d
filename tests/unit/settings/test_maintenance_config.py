import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from housekeeping.policies.errors import ConfigurationRefused
from settings import Suite
from settings.maintenance_config import MaintenanceConfig
from tests.unit.settings.conftest import REQUIRED, Load

# Upstream's documentation page; where it says nothing, its classes; the last lines are ours.
DOCUMENTED: dict[str, dict[str, Any]] = {
    "OccurrenceRetention": {
        "CompletedRetentionDays": 30,
        "FailedRetentionDays": 90,
        "CancelledRetentionDays": 30,
        "TimedOutRetentionDays": 30,
        "BatchSize": 1000,
        "VacuumAfterCleanup": True,
        "VacuumThreshold": 10_000,
        "UnknownRetentionDays": 90,
        "SkippedRetentionDays": 30,
    },
    "FailedOccurrenceRetention": {
        "RetentionDays": 180,
        "BatchSize": 500,
        "ResolvedRetentionDays": None,
        "UnresolvedRetentionDays": None,
    },
    "DatabaseMaintenance": {
        "EnableVacuum": True,
        "EnableAnalyze": True,
        "EnableReindex": False,
        "Tables": ["JobOccurrences", "ScheduledJobs", "FailedOccurrences"],
    },
    "RedisCleanup": {
        "KeyPrefix": "Milvaion:JobScheduler:",
        "CleanOrphanedJobCache": True,
        "CleanStaleLocks": True,
        "CleanOrphanedRunningStates": True,
        "StaleLockHours": 24,
    },
    "OccurrenceArchive": {
        "ArchiveAfterDays": 90,
        "ArchiveTablePrefix": "JobOccurrences_Archive",
        "StatusesToArchive": [2, 3, 4, 5],
        "BatchSize": 1000,
        "CreateIndexOnArchive": True,
        "VacuumAfterArchive": True,
        "VacuumThreshold": 10_000,
    },
    "ActivityLogRetention": {"RetentionDays": 60},
    "NotificationRetention": {"SeenRetentionDays": 30, "UnseenRetentionDays": 60},
    "WorkflowRunRetention": {
        "CompletedRetentionDays": 30,
        "FailedRetentionDays": 90,
        "CancelledRetentionDays": 30,
        "PartiallyCompletedRetentionDays": 60,
        "BatchSize": 1000,
        "VacuumAfterCleanup": True,
        "VacuumThreshold": 1000,
    },
}
KEYS = [(section, key) for section, keys in DOCUMENTED.items() for key in keys]
CHANGED = {"Tables": ["A", "B"], "KeyPrefix": "Other:", "ArchiveTablePrefix": "Old",
           "StatusesToArchive": [6, 7]}  # fmt: skip
DAY = timedelta(days=1)


def changed(section: str, key: str) -> Any:
    default = DOCUMENTED[section][key]
    if isinstance(default, bool):
        return not default
    return CHANGED.get(key, 7)


def said(suite: Suite, section: str, key: str) -> Any:
    return suite.model_dump(mode="json", by_alias=True)["MaintenanceConfig"][section][key]


def appsettings(**sections: Any) -> str:
    return json.dumps({"MaintenanceConfig": sections})


def connected(**sections: Any) -> str:
    return appsettings(
        DatabaseConnectionString="Host=db;Database=milvaion;Username=me;Password=pw",
        RedisConnectionString="cache:6379,password=pw",
        **sections,
    )


def test_defaults_are_those_of_the_documentation() -> None:
    defaults = MaintenanceConfig().model_dump(mode="json", by_alias=True)
    assert {section: defaults[section] for section in DOCUMENTED} == DOCUMENTED
    assert set(defaults) - set(DOCUMENTED) == {"DatabaseConnectionString", "RedisConnectionString"}


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_each_key_is_read_from_json(load: Load, section: str, key: str) -> None:
    value = changed(section, key)
    suite = load(connected(**{section: {key: value}}), name="appsettings.json")
    assert said(suite, section, key) == value


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_each_key_is_read_from_the_environment_in_any_case(
    load: Load, section: str, key: str
) -> None:
    value = changed(section, key)
    name = f"MAINTENANCECONFIG__{section}__{key.lower()}"
    items = {f"{name}__{place}": str(item) for place, item in enumerate(value)} if isinstance(
        value, list) else {name: str(value)}  # fmt: skip
    suite = load(REQUIRED, items)
    assert said(suite, section, key) == value


def test_the_environment_wins_over_the_file_item_by_item(load: Load) -> None:
    suite = load(
        connected(DatabaseMaintenance={"Tables": ["A", "B"]}, RedisCleanup={"keyprefix": "File:"}),
        {
            "MaintenanceConfig__DatabaseMaintenance__Tables__0": "X",
            "MaintenanceConfig__DatabaseMaintenance__Tables__10": "Y",
            "MaintenanceConfig:RedisCleanup:KeyPrefix": "Env:",
        },
        name="appsettings.json",
    )
    assert said(suite, "DatabaseMaintenance", "Tables") == ["X", "B", "Y"]
    assert said(suite, "RedisCleanup", "KeyPrefix") == "Env:"


def test_the_services_own_file_is_all_it_takes(load: Load) -> None:
    suite = load(
        """\ufeff// as it stands beside the service
        {
          "Logging": {"LogLevel": {"Default": "Information"}},
          "ConnectionStrings": null,
          "MaintenanceConfig": {
            "DatabaseConnectionString": "Host=db;Database=milvaion;Username=me;Password=pw",
            "RedisConnectionString": "cache:6379,password=pw,defaultDatabase=2",
            "OccurrenceRetention": {
              "CompletedRetentionDays": 10, /* shorter */
              "FailedRetentionDays": null,
              "BatchSize": 10000,
            },
          },
        }""",
        name="appsettings.json",
    )
    assert suite.redis_url.reveal() == "redis://:pw@cache:6379/2"
    (policy,) = suite.policies("occurrences.retention")
    assert policy.database_url == "postgresql://me:pw@db/milvaion"
    assert [rule.keep_for // DAY for rule in policy.rules] == [10, 90, 30, 30, 90, 30]
    assert policy.pace.first_window_rows == 10_000
    assert suite.policies("dead_letters.cleanup")[0].pace.first_window_rows == 500


def test_a_file_named_by_the_section_is_its_base(load: Load, tmp_path: Path) -> None:
    (tmp_path / "appsettings.json").write_text(
        appsettings(
            FailedOccurrenceRetention={
                "RetentionDays": 20,
                "ResolvedRetentionDays": 5,
                "UnresolvedRetentionDays": 40,
            },
            RedisConnectionString="cache",
        )
    )
    suite = load(REQUIRED + '[milvaion]\nmaintenance_config = "appsettings.json"\n')
    (policy,) = suite.policies("dead_letters.cleanup")
    assert [rule.keep_for // DAY for rule in policy.rules] == [5, 40]
    assert suite.redis_url.reveal() == "redis://cache:6379/0", "given natively, so it stays"
    assert suite.milvaion is not None
    assert suite.milvaion.redis_url is not None


def test_variables_alone_switch_the_system_on(load: Load) -> None:
    suite = load(
        None,
        {
            "MaintenanceConfig__DatabaseConnectionString": "Host=db;Database=milvaion",
            "MaintenanceConfig__RedisConnectionString": "cache",
        },
    )
    assert [policy.operation for policy in suite.all_policies()] == [
        "occurrences.retention",
        "dead_letters.cleanup",
        "database.maintain",
    ]
    assert suite.broker_url.reveal() == "redis://cache:6379/0"


def test_sections_without_an_operation_are_named(load: Load) -> None:
    assert load().unused_sections() == ()
    suite = load(
        connected(OccurrenceRetention={}, OccurrenceArchive={}, RedisCleanup={"KeyPrefix": "M:"}),
        {"MaintenanceConfig__ActivityLogRetention__RetentionDays": "30"},
        name="appsettings.json",
    )
    assert suite.unused_sections() == (
        "MaintenanceConfig.RedisCleanup",
        "MaintenanceConfig.ActivityLogRetention",
    )


def test_an_archive_that_is_given_goes_on_the_schedule(load: Load) -> None:
    without = load(connected(OccurrenceRetention={}), name="appsettings.json")
    assert "occurrences.archive" not in [policy.operation for policy in without.all_policies()]
    (policy,) = without.policies("occurrences.archive")
    assert {rule.keep_for.days for rule in policy.rules} == {90}
    given = {
        "ArchiveAfterDays": 45,
        "ArchiveTablePrefix": "Old",
        "StatusesToArchive": [2, 7],
        "CreateIndexOnArchive": False,
        "BatchSize": 77,
    }
    suite = load(connected(OccurrenceArchive=given), name="appsettings.json")
    policy = {policy.operation: policy for policy in suite.all_policies()}["occurrences.archive"]
    assert [(rule.reason, rule.value) for rule in policy.rules] == [
        ("completed", 2),
        ("skipped", 7),
    ]
    assert {rule.keep_for.days for rule in policy.rules} == {45}
    assert (policy.archive.prefix, policy.archive.indexes) == ("Old", ())
    assert policy.pace.first_window_rows == 77


WRONG = [
    ("OccurrenceRetention", "CompletedRetentionDay", 5, 'did you mean "CompletedRetentionDays"?'),
    ("OccurrenceRetentions", "X", 5, 'OccurrenceRetentions: unknown key; did you mean "Occurrenc'),
    (
        "OccurrenceRetention",
        "CompletedRetentionDays",
        0,
        "upstream would delete every finished row",
    ),
    ("OccurrenceRetention", "FailedRetentionDays", -1, "put the cutoff in the future"),
    ("OccurrenceRetention", "CompletedRetentionDays", 36_501, "from 1 to 36500"),
    ("OccurrenceRetention", "CompletedRetentionDays", "30d", "from 1 to 36500"),
    ("OccurrenceRetention", "CompletedRetentionDays", 1.5, "from 1 to 36500"),
    ("OccurrenceRetention", "CompletedRetentionDays", True, "from 1 to 36500"),
    ("OccurrenceRetention", "BatchSize", 0, "upstream loops for ever at 0"),
    ("OccurrenceRetention", "BatchSize", 1_000_001, "from 1 to 1000000"),
    ("OccurrenceRetention", "VacuumThreshold", -1, "give a whole number 0 or more"),
    ("OccurrenceRetention", "VacuumAfterCleanup", 1, "give true or false"),
    ("FailedOccurrenceRetention", "RetentionDays", 0, "give a whole number of days"),
    ("DatabaseMaintenance", "Tables", [], "give a list of table names"),
    ("DatabaseMaintenance", "Tables", [""], "give a name"),
    ("RedisCleanup", "KeyPrefix", "", "an empty prefix is every key of the store"),
    ("RedisCleanup", "KeyPrefix", "M*", "is read as a pattern"),
    ("RedisCleanup", "StaleLockHours", 0, "give a whole number from 1 to 876000"),
    ("OccurrenceArchive", "StatusesToArchive", [], "give a list of final statuses"),
    ("OccurrenceArchive", "StatusesToArchive", [1, 2], "only final statuses may leave the table"),
    ("OccurrenceArchive", "StatusesToArchive", [8], "only final statuses may leave the table"),
    ("OccurrenceArchive", "StatusesToArchive", "2", "give a list of final statuses"),
    ("OccurrenceArchive", "ArchiveTablePrefix", "", "give a name"),
    ("OccurrenceArchive", "ArchiveTablePrefix", "x" * 51, "cuts names at 63 bytes"),
    ("NotificationRetention", "SeenRetentionDays", -5, "put the cutoff in the future"),
]


@pytest.mark.parametrize(("section", "key", "value", "told"), WRONG)
def test_a_wrong_value_is_refused_and_says_what_upstream_would_do(
    load: Load, section: str, key: str, value: object, told: str
) -> None:
    with pytest.raises(ConfigurationRefused) as refused:
        load(connected(**{section: {key: value}}), name="appsettings.json")
    (line,) = refused.value.message.splitlines()
    assert line.startswith(f"MaintenanceConfig.{section}")
    assert told in line
    assert line.endswith("appsettings.json)")


@pytest.mark.parametrize("days", [1, 36_500])
def test_the_bounds_of_days_are_accepted(load: Load, days: int) -> None:
    suite = load(
        connected(OccurrenceRetention={"CompletedRetentionDays": days}), name="appsettings.json"
    )
    assert suite.policies("occurrences.retention")[0].rules[0].keep_for == days * DAY


def test_one_key_in_two_cases_is_refused(load: Load) -> None:
    with pytest.raises(ConfigurationRefused, match='"BatchSize" is given twice'):
        load(
            connected(OccurrenceRetention={"BatchSize": 1, "batchsize": 2}),
            name="appsettings.json",
        )


def test_a_broken_connection_string_is_the_only_thing_told_about_it(load: Load) -> None:
    with pytest.raises(ConfigurationRefused) as refused:
        load(
            appsettings(DatabaseConnectionString="Database=x", RedisConnectionString="a,b"),
            name="appsettings.json",
        )
    paths = [line.partition(":")[0] for line in refused.value.message.splitlines()]
    assert paths == [
        "MaintenanceConfig.DatabaseConnectionString",
        "MaintenanceConfig.RedisConnectionString",
    ]


def test_a_named_file_without_the_section_is_refused(load: Load, tmp_path: Path) -> None:
    (tmp_path / "appsettings.json").write_text("{}")
    with pytest.raises(ConfigurationRefused, match='holds no section "MaintenanceConfig"'):
        load(REQUIRED + '[milvaion]\nmaintenance_config = "appsettings.json"\n')
