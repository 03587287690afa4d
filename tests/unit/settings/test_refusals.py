"""One wrong setting each: every one is refused with exit code 65, and says what to give."""

import pytest

from housekeeping.policies.errors import EXIT_CONFIGURATION, ConfigurationRefused
from tests.unit.settings.conftest import REQUIRED, Load

EVENTS = '[tables.events]\ntable = "events"\nage = "created_at"\n'
BY_AGE = EVENTS + 'keep_for = "30d"\n'
RETENTION = "[milvaion.retention]\n"

WRONG = [
    ('queues = "x"', 'queues: unknown key; did you mean "queue"?'),
    ("zzz = 1", "zzz: unknown key; accepted are redis_url, broker_url"),
    ('queue = ""', 'queue = "": give a name'),
    ("queue = 5", "queue = 5: give a name"),
    ('splay = "-5s"', 'splay = "-5s": a duration can\'t be negative'),
    ('splay = "2d"', 'splay = "2d": give a duration from 0s to 1d'),
    ("metrics_port = 0", "metrics_port = 0: give a whole number from 1 to 65535"),
    ("metrics_port = 0x" + "f" * 5000, "metrics_port = a very large number: give a whole number"),
    ("metrics_port = true", "metrics_port = true: give a whole number from 1 to 65535"),
    ('visibility_timeout = "1s"', "give a duration from 2s to 1d"),
    ('lease_ttl = "999ms"', "give a duration from 1s to 1d"),
    ("lease_ttl = 0x" + "f" * 5000, "lease_ttl = a very large number: over 36,500 days"),
    ("lease_ttl = nan", "lease_ttl = NaN: give a number and a unit"),
    ('broker_url = "sqs://x"', "broker_url: sqs:// is not accepted; start it with one of redis://"),
    ('result_backend = "x"', "result_backend: has no scheme"),
    ("milvaion = 5", "milvaion = 5: give a section of keys and values"),
    ("tables = []", "tables: give a section of keys and values"),
    ("tables.events = 1", "tables.events = 1: give a section of keys and values"),
    (
        RETENTION + 'completed_keep_for = "30 dayz"',
        'milvaion.retention.completed_keep_for = "30 dayz": give a number and a unit such as '
        '"30d", "12h", "200ms", or ISO 8601 such as "P30D"',
    ),
    (RETENTION + "failed_keep_for = 0", "milvaion.retention.failed_keep_for = 0: zero would let"),
    (RETENTION + "failed_keep_for = true", "failed_keep_for = true: give a number and a unit"),
    (RETENTION + 'skipped_keep_for = "36501d"', "over 36,500 days"),
    (RETENTION + 'unknown_keep_for = "P1Y"', "years and months have no fixed length"),
    (RETENTION + "keep_for = 5", "milvaion.retention.keep_for: unknown key; did you mean"),
    (RETENTION + "batch_rows = 0", "batch_rows = 0: give a whole number from 1 to 1000000"),
    (RETENTION + "batch_rows = -1", "batch_rows = -1: give a whole number from 1 to 1000000"),
    (RETENTION + "workers = 0", "workers = 0: give a whole number from 1 to 64"),
    (RETENTION + "split_above_rows = 0", "split_above_rows = 0: give a whole number 1 or more"),
    ("max_workers_per_database = 0", "max_workers_per_database = 0: give a whole number from 1"),
    (RETENTION + "batch_rows = 1.5", "batch_rows = 1.5: give a whole number from 1 to 1000000"),
    (RETENTION + "row_budget = 0", "row_budget = 0: give a whole number 1 or more"),
    (RETENTION + "duty = 0", "duty = 0: give a number from 0.01 to 1"),
    (RETENTION + "duty = 1.01", "duty = 1.01: give a number from 0.01 to 1"),
    (RETENTION + "duty = nan", "duty = NaN: give a number from 0.01 to 1"),
    (RETENTION + "duty = 0x" + "f" * 5000, "duty = a very large number: give a number"),
    (RETENTION + "duty = true", "duty = true: give a number from 0.01 to 1"),
    (RETENTION + 'batch_target = "9ms"', "give a duration from 10ms to 10s"),
    (RETENTION + 'batch_target = "11s"', "give a duration from 10ms to 10s"),
    (RETENTION + 'time_budget = "25h"', "give a duration from 1s to 1d"),
    (RETENTION + 'lock_timeout = "61s"', "give a duration from 1ms to 1m"),
    (RETENTION + 'where = " "', 'where = " ": give an SQL expression as text'),
    (RETENTION + 'enabled = "perhaps"', 'enabled = "perhaps": give true or false'),
    (
        "[milvaion.dead_letters]\nkeepfor = 1",
        'dead_letters.keepfor: unknown key; did you mean "kee',
    ),
    ('[milvaion]\nschema = ""', 'milvaion.schema = "": give a name'),
    ("[milvaion]\nretention = false", "milvaion.retention = false: give a section"),
    ('[milvaion]\nmaintenance_config = "gone.json"', "maintenance_config: "),
    (EVENTS + 'keepfor = "1d"', 'tables.events.keepfor: unknown key; did you mean "keep_for"?'),
    (EVENTS, "tables.events.keep_for: missing: give keep_for"),
    (BY_AGE + 'status_column = "s"', "keep_for: can't stand beside status_column: with statuses"),
    (BY_AGE + 'statuses = {done = "1d"}', "keep_for: can't stand beside statuses: with statuses"),
    (EVENTS + 'statuses = {done = "1d"}', "tables.events.status_column: missing"),
    (EVENTS + 'status_column = "s"', "tables.events.statuses: missing"),
    (EVENTS + 'status_column = "s"\nstatuses = {}', "tables.events.statuses: names no status"),
    (EVENTS + 'status_column = "s"\nstatuses = {a = "x"}', 'statuses.a = "x": give a number and'),
    (BY_AGE + 'age_unit = "min"', 'age_unit = "min": give "s", "ms" or "us"'),
    (BY_AGE + 'time_zone = "Mars"', 'time_zone = "Mars": give an IANA time zone'),
    (BY_AGE + 'time_zone = "../etc"', "give an IANA time zone"),
    (BY_AGE + 'schema = "\\u0000"', "tables.events.schema"),
    ('[tables.e]\nage = "a"\nkeep_for = 1', "tables.e.table: missing: name the table"),
    ('[tables.e]\ntable = "t"\nkeep_for = 1', "tables.e.age: missing: give the column"),
    (
        '[tables.e]\ntable = ["a"]\nage = "a"\nkeep_for = 1',
        "tables.e.table: give a name, or a list",
    ),
    (
        '[tables.e]\ntable = ["a", "b"]\nschema = "a"\nage = "a"\nkeep_for = 1',
        "tables.e.schema: is given twice",
    ),
    ('[tables.""]\ntable = "t"\nage = "a"\nkeep_for = 1', 'tables."": give a name'),
]


@pytest.mark.parametrize(("text", "told"), WRONG)
def test_a_wrong_setting_is_refused_and_says_what_to_give(load: Load, text: str, told: str) -> None:
    with pytest.raises(ConfigurationRefused) as refused:
        load(f"{REQUIRED}{text}\n")
    assert told in refused.value.message
    assert "housekeeping.toml" in refused.value.message
    assert refused.value.exit_code == EXIT_CONFIGURATION
    assert "pydantic" not in refused.value.message


def test_all_problems_are_told_at_once_one_a_line(load: Load) -> None:
    with pytest.raises(ConfigurationRefused) as refused:
        load(
            '[tables.events]\ntable = ""\nage = "a"\nkeep_for = "x"\n'
            "[milvaion]\nbad = 1\n[milvaion.retention]\nduty = 7\n",
            {"HOUSEKEEPING__SPLAY": "soon", "MaintenanceConfig__RedisCleanup__KeyPrefix": ""},
        )
    lines = refused.value.message.splitlines()
    assert sorted(line.partition(":")[0].partition(" =")[0] for line in lines) == [
        "MaintenanceConfig.RedisCleanup.KeyPrefix",
        "milvaion.bad",
        "milvaion.database_url",
        "milvaion.retention.duty",
        "redis_url",
        "splay",
        "tables.events.database_url",
        "tables.events.keep_for",
        "tables.events.table",
    ]


def test_nothing_at_all_names_the_missing_redis_url(load: Load) -> None:
    with pytest.raises(ConfigurationRefused) as refused:
        load(None)
    assert refused.value.message == (
        "redis_url: missing: leases and schedules need it; give redis_url = "
        '"redis://host:6379/0" or the variable HOUSEKEEPING__REDIS_URL '
        "(no configuration file; HOUSEKEEPING_CONFIG may name one)"
    )


def test_a_policy_without_a_database_names_both_places_for_it(load: Load) -> None:
    with pytest.raises(ConfigurationRefused) as refused:
        load('redis_url = "redis://cache"\n' + BY_AGE)
    assert "tables.events.database_url: missing: give it here, or database_url at the top" in (
        refused.value.message
    )


def test_a_line_names_the_variable_its_value_came_from(load: Load) -> None:
    with pytest.raises(ConfigurationRefused) as refused:
        load(REQUIRED + BY_AGE, {"HOUSEKEEPING__TABLES__EVENTS__KEEP_FOR": "ever"})
    assert refused.value.message == (
        'tables.events.keep_for = "ever": give a number and a unit such as "30d", "12h", "200ms", '
        'or ISO 8601 such as "P30D" (environment variable HOUSEKEEPING__TABLES__EVENTS__KEEP_FOR)'
    )


@pytest.mark.parametrize(
    ("variable", "text", "told"),
    [
        ("HOUSEKEEPING__QUEUES", "x", 'queues: unknown key; did you mean "queue"?'),
        ("HOUSEKEEPING__TABLES__EVENTS__KEEPFOR", "1d", 'did you mean "keep_for"?'),
        ("HOUSEKEEPING__", "x", "HOUSEKEEPING__ names no setting"),
        ("HOUSEKEEPING____QUEUE", "x", "names no setting"),
        ("HOUSEKEEPING__TABLES", '{"events": ', "tables: is broken JSON"),
        ("HOUSEKEEPING__MILVAION", "on", 'milvaion = "on": give a section'),
        ("HOUSEKEEPING__QUEUE__NAME", "x", "queue: give a name"),
        ("HOUSEKEEPING__TABLES__EVENTS__STATUSES__DONE", "1d", "a status is data"),
        ("MaintenanceConfig__RedisCleanup__Prefix", "x", 'did you mean "KeyPrefix"?'),
        ("MaintenanceConfig__", "x", "names no setting"),
    ],
)
def test_a_wrong_variable_is_refused_by_name(
    load: Load, variable: str, text: str, told: str
) -> None:
    with pytest.raises(ConfigurationRefused) as refused:
        load(REQUIRED + BY_AGE, {variable: text})
    assert told in refused.value.message
    assert variable in refused.value.message


def test_one_key_in_two_variables_is_refused(load: Load) -> None:
    with pytest.raises(ConfigurationRefused, match="given twice"):
        load(REQUIRED, {"HOUSEKEEPING__QUEUE": "a", "housekeeping__queue": "b"})


def test_an_empty_section_says_how_to_switch_it_on(load: Load) -> None:
    with pytest.raises(ConfigurationRefused, match=r"milvaion: is empty; give \{\}"):
        load('{"redis_url": "redis://c", "milvaion": null}', name="h.json")
