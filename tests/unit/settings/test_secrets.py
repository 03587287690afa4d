"""A password is shown by nothing: not by settings, not by policies, not by a refusal."""

import json
import traceback
from pathlib import Path

import pytest

from housekeeping.policies.errors import ConfigurationRefused
from tests.unit.settings.conftest import Load

SECRET = "h4rd-to-guess"
DATABASE = f"postgresql://me:{SECRET}@db/jobs?sslpassword={SECRET}"
NPGSQL = f"Host=db;Database=jobs;Username=me;Password={SECRET}"
STACKEXCHANGE = f"cache:6379,password={SECRET}"
FULL = f"""
redis_url = "redis://:{SECRET}@cache/0"
broker_url = "amqp://me:{SECRET}@mq//"
result_backend = "redis://cache/1?password={SECRET}"
database_url = "{DATABASE}"
[milvaion]
database_url = "{DATABASE}"
redis_url = "redis://{SECRET}@cache/0"
[tables.events]
database_url = "{DATABASE}"
table = "events"
age = "at"
keep_for = "30d"
"""
UPSTREAM = {
    "MaintenanceConfig__DatabaseConnectionString": NPGSQL,
    "MaintenanceConfig__RedisConnectionString": STACKEXCHANGE,
}


@pytest.mark.parametrize("environment", [{}, UPSTREAM])
def test_settings_never_show_a_password(load: Load, environment: dict[str, str]) -> None:
    suite = load(FULL, environment)
    shown = [
        repr(suite),
        str(suite),
        repr(suite.model_dump()),
        str(suite.model_dump(mode="json")),
        suite.model_dump_json(),
        json.dumps(suite.describe()),
        repr(suite.all_policies()),
        repr(suite.__dict__),
    ]
    assert all(SECRET not in each for each in shown)
    assert all(SECRET in policy.database_url for policy in suite.all_policies())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("REDIS_URL", f"http://:{SECRET}@cache"),
        ("REDIS_URL", f"redis://:{SECRET}@@cache"),
        ("REDIS_URL", f":{SECRET}@cache"),
        ("DATABASE_URL", f"mysql://me:{SECRET}@db"),
        ("DATABASE_URL", f"postgresql://me:{SECRET}@db:x/jobs"),
        ("DATABASE_URL", NPGSQL),
        ("QUEUES", f"redis://:{SECRET}@cache"),
        ("MILVAION", f"postgresql://me:{SECRET}@db"),
        ("MILVAION", NPGSQL),
        ("MILVAION", f'{{"database_url": "postgresql://me:{SECRET}@db"'),
        ("MILVAION", f'{{"database_url": ["postgresql://me:{SECRET}@db"]}}'),
        ("MILVAION", f'{{"database": "postgresql://me:{SECRET}@db"}}'),
        ("SPLAY", f"redis://:{SECRET}@cache"),
        ("SPLAY", f"redis://:{SECRET}"),
        ("METRICS_PORT", STACKEXCHANGE),
        ("METRICS_PORT", f"PGPASSWORD={SECRET}"),
    ],
)
def test_no_refusal_repeats_a_password(load: Load, key: str, value: str) -> None:
    with pytest.raises(ConfigurationRefused) as refused:
        load(FULL, {f"HOUSEKEEPING__{key}": value})
    told = "".join(traceback.format_exception(refused.value))
    assert SECRET not in told
    assert SECRET not in repr(refused.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("DatabaseConnectionString", f"Database=jobs;Password={SECRET}"),
        ("DatabaseConnectionString", f"Host=db;Pasword={SECRET}"),
        ("DatabaseConnectionString", f"Host=db;Password=a;{SECRET}"),
        ("DatabaseConnectionString", f"Host=db;Password=a;hoste={SECRET}"),
        ("DatabaseConnectionString", f"mysql://me:{SECRET}@db"),
        ("RedisConnectionString", f"a:1,b:2,password={SECRET}"),
        ("RedisConnectionString", f"password={SECRET}"),
        ("RedisConnectionString", f"http://:{SECRET}@cache"),
        ("redisconnectionstring", f"cache,pasword={SECRET}"),
        ("ConnectionString", NPGSQL),
        ("OccurrenceRetention", NPGSQL),
    ],
)
def test_no_refusal_of_milvaions_own_settings_repeats_one(load: Load, key: str, value: str) -> None:
    with pytest.raises(ConfigurationRefused) as refused:
        load(FULL, {f"MaintenanceConfig__{key}": value})
    assert SECRET not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize("suffix", ["toml", "json", "yaml"])
def test_a_broken_file_repeats_none(load: Load, tmp_path: Path, suffix: str) -> None:
    with pytest.raises(ConfigurationRefused) as refused:
        load(f"redis_url: 'redis://:{SECRET}@cache\n{SECRET}", name=f"h.{suffix}")
    assert SECRET not in "".join(traceback.format_exception(refused.value))
