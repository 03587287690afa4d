"""Ages of every type, by the database's clock."""

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.policies.purge import Age, ExpiryRule
from tests.integration.database import Database
from tests.integration.runs import DAYS, SMALL_WINDOWS, policy_on, run

BOTH_WALKERS = pytest.mark.parametrize("walker", ["heap", "index"])


@pytest.mark.parametrize(
    ("declared", "age", "value"),
    [
        ("date", Age(columns=("at",)), "(now() - i * interval '1 day')::date"),
        ("timestamp", Age(columns=("at",)), "now() - i * interval '1 day' - interval '1 minute'"),
        (
            "timestamp(3)",
            Age(columns=("at",)),
            "now() - i * interval '1 day' - interval '1 minute'",
        ),
        ("timestamptz(0)", Age(columns=("at",)), "now() - i * interval '1 day' - interval '1 min'"),
        ("bigint", Age(columns=("at",), unit="s"), "extract(epoch FROM now()) - i * 86400 - 60"),
        ("bigint", Age(columns=("at",), unit="ms"), "(extract(epoch FROM now())-i*86400-60)*1000"),
        ("bigint", Age(columns=("at",), unit="us"), "(extract(epoch FROM now())-i*86400-60)*1e6"),
        ("integer", Age(columns=("at",), unit="s"), "extract(epoch FROM now()) - i * 86400 - 60"),
        (
            "text",
            Age(expression="at::timestamptz"),
            "now() - i * interval '1 day' - interval '1 s'",
        ),
        (
            "timestamptz",
            Age(expression="coalesce(at, 'epoch')"),
            "now() - i * interval '1 day' - interval '1 minute'",
        ),
    ],
)
@BOTH_WALKERS
def test_every_kind_of_age_is_compared_in_its_own_type(
    database: Database, around: Surroundings, walker: str, declared: str, age: Age, value: str
) -> None:
    database.run(f"CREATE TABLE events (id int, at {declared})")
    if age.expression is None:
        database.run("CREATE INDEX ON events (at)")
    database.run(f"INSERT INTO events SELECT i, {value} FROM generate_series(1, 60) i")

    result = run(policy_on(database, age=age), around, walker=walker)

    # A date is expired only once its whole day is.
    youngest_gone = 31 if declared == "date" else 30
    survivors = list(range(1, youngest_gone))
    assert database.column("SELECT id FROM events ORDER BY id") == survivors
    assert result.total == 60 - len(survivors)


def test_a_timestamp_without_time_zone_is_read_where_its_clock_hangs(
    database: Database, around: Surroundings
) -> None:
    """Rows written by clocks in Tokyo, just inside and just past a day."""
    database.run("CREATE TABLE events (id int, at timestamp)")
    database.run(
        "INSERT INTO events SELECT i, (now() - i * interval '1 minute') AT TIME ZONE 'Asia/Tokyo'"
        " FROM (VALUES (1439), (1441)) v(i)"
    )
    day = (ExpiryRule(reason="expired", keep_for=DAYS),)
    tokyo = Age(columns=("at",), time_zone="Asia/Tokyo")

    run(policy_on(database, age=tokyo, rules=day), around)

    assert database.column("SELECT id FROM events") == [1439]


@BOTH_WALKERS
def test_the_sessions_own_time_zone_and_date_style_change_nothing(
    events: Database, around: Surroundings, walker: str
) -> None:
    """Dublin's summer time is called IST, which the server reads as Israel's."""
    events.run(
        "INSERT INTO events SELECT i, timestamptz '2025-07-01 12:00Z' + i * interval '1 minute'"
        " FROM generate_series(1, 1000) i"
    )
    name = events.one("SELECT current_database()")
    events.run(f"ALTER DATABASE {name} SET timezone = 'Europe/Dublin'")
    events.run(f"ALTER DATABASE {name} SET datestyle = 'SQL, DMY'")

    result = run(policy_on(events, pace=SMALL_WINDOWS), around, walker=walker)

    assert (events.count("events"), result.total, result.success) == (0, 1_000, True)
