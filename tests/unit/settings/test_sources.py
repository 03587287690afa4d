import json
from datetime import timedelta
from pathlib import Path

import pytest

import settings
from tests.unit.settings.conftest import REQUIRED, Load

DAY = timedelta(days=1)
EVENTS = '[tables.events]\ntable = "events"\nage = "created_at"\nkeep_for = "30d"\n'


def test_the_environment_wins_over_the_file(load: Load) -> None:
    suite = load(
        REQUIRED + 'queue = "slow"\n' + EVENTS,
        {"HOUSEKEEPING__QUEUE": "fast", "HOUSEKEEPING__TABLES__EVENTS__KEEP_FOR": "7d"},
    )
    assert suite.queue == "fast"
    assert suite.tables["events"].keep_for == 7 * DAY
    assert suite.tables["events"].age == "created_at"


def test_a_variable_knows_no_case(load: Load) -> None:
    suite = load(
        REQUIRED + EVENTS.replace("events]", "Events]"),
        {"housekeeping__Tables__EVENTS__Keep_For": "7d"},
    )
    assert suite.tables["Events"].keep_for == 7 * DAY


def test_the_environment_alone_is_enough(load: Load) -> None:
    suite = load(
        None,
        {
            "HOUSEKEEPING__REDIS_URL": "redis://cache",
            "HOUSEKEEPING__DATABASE_URL": "postgresql://db/jobs",
            "HOUSEKEEPING__MILVAION__RETENTION__COMPLETED_KEEP_FOR": "10d",
            "HOUSEKEEPING__MILVAION__RETENTION__ENABLED": "False",
            "HOUSEKEEPING__MILVAION__RETENTION__BATCH_ROWS": "77",
            "HOUSEKEEPING__TABLES__EVENTS__TABLE": '["app", "events"]',
            "HOUSEKEEPING__TABLES__EVENTS__AGE": "at",
            "HOUSEKEEPING__TABLES__EVENTS__STATUS_COLUMN": "state",
            "HOUSEKEEPING__TABLES__EVENTS__STATUSES": '{"Done": "30d"}',
            "HOUSEKEEPING__METRICS_PORT": "9100",
            "UNRELATED": "x",
            "HOUSEKEEPING_CONFIG": "",
        },
    )
    assert suite.milvaion is not None
    assert suite.milvaion.retention.completed_keep_for == 10 * DAY
    assert not suite.milvaion.retention.enabled
    assert suite.milvaion.retention.batch_rows == 77
    assert str(suite.tables["events"].table) == "app.events"
    assert suite.tables["events"].statuses == {"Done": 30 * DAY}
    assert suite.metrics_port == 9100


def test_a_section_given_as_json_is_laid_over_the_file_and_under_its_own_keys(load: Load) -> None:
    suite = load(
        REQUIRED + EVENTS,
        {
            "HOUSEKEEPING__TABLES__EVENTS": '{"duty": 1, "keep_for": "3d", "batch_rows": 5}',
            "HOUSEKEEPING__TABLES__EVENTS__KEEP_FOR": "2d",
        },
    )
    events = suite.tables["events"]
    assert (events.duty, events.keep_for, events.batch_rows) == (1, 2 * DAY, 5)
    assert events.age == "created_at"


def test_text_that_looks_like_json_stays_text_where_text_belongs(load: Load) -> None:
    suite = load(REQUIRED + EVENTS, {"HOUSEKEEPING__TABLES__EVENTS__WHERE": "['a'] @> tags"})
    assert suite.tables["events"].where == "['a'] @> tags"


def test_a_status_of_the_file_can_be_changed_from_the_environment(load: Load) -> None:
    suite = load(
        REQUIRED
        + '[tables.e]\ntable = "e"\nage = "a"\nstatus_column = "s"\nstatuses = {Done = "30d"}\n',
        {"HOUSEKEEPING__TABLES__E__STATUSES__DONE": "1d"},
    )
    assert suite.tables["e"].statuses == {"Done": DAY}


def test_the_file_in_the_working_directory_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("housekeeping.toml").write_text(REQUIRED + 'queue = "here"\n')
    Path("other.json").write_text('{"redis_url": "redis://c", "queue": "there"}')
    assert settings.load({}).queue == "here"
    assert settings.load({"HOUSEKEEPING_CONFIG": "other.json"}).queue == "there"
    named = settings.load({"HOUSEKEEPING_CONFIG": "other.json"}, Path("housekeeping.toml"))
    assert named.queue == "here"


def test_the_environment_is_the_processs_own_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOUSEKEEPING__REDIS_URL", "redis://own")
    assert settings.load().redis_url.reveal() == "redis://own"


def days(number: int, **more: object) -> dict[str, object]:
    return {
        "MaintenanceConfig": {"OccurrenceRetention": {"CompletedRetentionDays": number}, **more}
    }


def test_each_source_wins_over_the_one_below_it(tmp_path: Path, load: Load) -> None:
    (tmp_path / "appsettings.json").write_text(json.dumps(days(1)))
    named = '[milvaion]\nmaintenance_config = "appsettings.json"\n'
    native = "[milvaion.retention]\ncompleted_keep_for = 3\n"
    upstream = {"MAINTENANCECONFIG__OCCURRENCERETENTION__COMPLETEDRETENTIONDAYS": "2"}
    own = {"HOUSEKEEPING__MILVAION__RETENTION__COMPLETED_KEEP_FOR": "4d"}

    def completed(text: str, environment: dict[str, str]) -> timedelta:
        suite = load(REQUIRED + text, environment)
        assert suite.milvaion is not None
        return suite.milvaion.retention.completed_keep_for

    assert completed(named, {}) == DAY
    assert completed(named, upstream) == 2 * DAY
    assert completed(named + native, upstream) == timedelta(seconds=3)
    assert completed(named + native, upstream | own) == 4 * DAY


def test_a_named_file_lies_beside_the_file_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "appsettings.json").write_text(json.dumps(days(9)))
    main = folder / "h.toml"
    main.write_text(REQUIRED + '[milvaion]\nmaintenance_config = "appsettings.json"\n')
    monkeypatch.chdir(tmp_path)
    suite = settings.load({}, main)
    assert suite.milvaion is not None
    assert suite.milvaion.retention.completed_keep_for == 9 * DAY
    environment = {"HOUSEKEEPING__MILVAION__MAINTENANCE_CONFIG": "etc/appsettings.json"}
    assert settings.load(environment, main) != suite  # from here, as a shell would read it
