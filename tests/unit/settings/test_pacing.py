"""What users write about pacing: limits, sizes, hours; and what is refused."""

import json
from datetime import time, timedelta

import pytest

from housekeeping.policies.errors import ConfigurationRefused
from housekeeping.policies.health import HealthLimits
from housekeeping.policies.pace import Pace
from settings.sizes import parse_size
from tests.unit.settings.conftest import REQUIRED, Load

EVENTS = '[tables.events]\ntable = "events"\nage = "at"\nkeep_for = "30d"\n'
MB = 1024 * 1024


def pace(load: Load, text: str, **environment: str) -> Pace:
    variables = {f"HOUSEKEEPING__{name}": value for name, value in environment.items()}
    return load(REQUIRED + text, variables).policies("tables.purge")[0].pace


def test_nothing_said_is_the_engines_own_limits(load: Load) -> None:
    assert pace(load, EVENTS).health == HealthLimits()
    assert pace(load, "[health]\n" + EVENTS).health == HealthLimits()
    assert pace(load, EVENTS + "health = {}\n").health == HealthLimits()


def test_limits_of_all_policies_and_those_a_policy_gives_itself(load: Load) -> None:
    text = (
        '[health]\nmax_replication_lag = "5s"\nexpected_standbys = ["a", "b"]\nsql = "SELECT 1"\n'
    )
    own = '[tables.events.health]\nmax_replication_lag = "1m"\nmax_wal_rate = "64MB"\n'

    assert pace(load, text + EVENTS + own).health == HealthLimits(
        max_replication_lag=timedelta(minutes=1),
        expected_standbys=("a", "b"),
        sql="SELECT 1",
        max_wal_rate=64 * MB,
    )


def test_a_policy_may_go_back_to_a_default(load: Load) -> None:
    text = "[health]\nmax_lock_waiters = 1\n"
    own = "[tables.events.health]\nmax_lock_waiters = 20\n"

    assert pace(load, text + EVENTS + own).health.max_lock_waiters == 20


def test_one_standby_needs_no_list_and_the_environment_takes_both(load: Load) -> None:
    assert pace(load, '[health]\nexpected_standbys = "a"\n' + EVENTS).health.expected_standbys == (
        "a",
    )
    many = pace(load, EVENTS, HEALTH__EXPECTED_STANDBYS='["a", "b"]')
    assert many.health.expected_standbys == ("a", "b")


def test_milvaions_policies_have_them_too(load: Load) -> None:
    suite = load(
        REQUIRED
        + "[health]\npause_during_autovacuum = true\n"
        + '[milvaion.retention]\nonly_between = "22:00-04:00"\nhealth = {patience = "1h"}\n'
    )
    (retention,) = suite.policies("occurrences.retention")
    (letters,) = suite.policies("dead_letters.cleanup")

    assert retention.pace.health == HealthLimits(
        pause_during_autovacuum=True, patience=timedelta(hours=1)
    )
    assert letters.pace.health == HealthLimits(pause_during_autovacuum=True)
    assert retention.pace.only_between is not None
    assert letters.pace.only_between is None


def test_hours_are_on_the_clock_of_their_time_zone(load: Load) -> None:
    hours = pace(
        load,
        EVENTS
        + 'only_between = "sat-sun 1:30 - 24:00"\nonly_between_time_zone = "Europe/Berlin"\n',
    ).only_between

    assert hours is not None
    assert str(hours) == "only_between sat-sun 1:30 - 24:00 (Europe/Berlin)"
    (opening,) = hours.openings
    assert (opening.start, opening.end, opening.days) == (time(1, 30), time(0), {5, 6})


def test_settings_with_pacing_are_described_as_json(load: Load) -> None:
    described = load(
        REQUIRED + '[health]\nmin_free_disk = "20GB"\n' + EVENTS + 'only_between = "01:00-05:00"\n'
    ).describe()

    assert json.loads(json.dumps(described)) == described
    assert described["tables"]["events"]["only_between"] == "01:00-05:00"
    assert described["health"]["min_free_disk"] == "20GB"


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ("1", 1), (1, 1), ("1kB", 1024), ("256MB", 256 * MB), ("256 mb", 256 * MB),
        ("1.5GB", 1536 * MB), ("2TB", 2 * 1024 * 1024 * MB),
    ],
)  # fmt: skip
def test_sizes(given: object, size: int) -> None:
    assert parse_size(given) == size


HOURS = 'give hours such as "01:00-05:00"'
SIZE = 'give a size above zero such as "256MB"'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('only_between = ""', f'only_between = "": {HOURS}'),
        ("only_between = 5", f"only_between = 5: {HOURS}"),
        ('only_between = "night"', HOURS),
        ('only_between = "01:00"', HOURS),
        ('only_between = "01:00-25:00"', HOURS),
        ('only_between = "24:00-05:00"', HOURS),
        ('only_between = "01:00-24:01"', HOURS),
        ('only_between = "01:60-05:00"', HOURS),
        ('only_between = "01:00-05:00,"', HOURS),
        ('only_between = "mo 01:00-05:00"', HOURS),
        ('only_between = "01:00-01:00"', "begins when it ends; give 00:00-24:00"),
        ('only_between = "01:00-02:00"\nonly_between_time_zone = "CET-1"', "IANA time zone"),
        ('health = "off"', "give a section of keys and values"),
        ("health = {max_lag = 5}", "tables.events.health.max_lag: unknown key"),
        ("health = {enabled = 2}", "health.enabled = 2: give true or false"),
        ('health = {max_replication_lag = "50ms"}', "give a duration from 100ms to 1d"),
        ("health = {max_replication_bytes = 0}", f"max_replication_bytes = 0: {SIZE}"),
        ('health = {max_wal_rate = "-1MB"}', SIZE),
        ('health = {max_wal_rate = "10PB"}', SIZE),
        ("health = {min_free_disk = true}", SIZE),
        ("health = {min_free_disk = 1.5}", SIZE),
        ("health = {max_lock_waiters = -1}", "give a whole number from 0 to 100000"),
        ("health = {max_archive_backlog = 1.5}", "give a whole number from 0 to 1000000"),
        ("health = {expected_standbys = 5}", "expected_standbys"),
        ('health = {expected_standbys = [""]}', "give a name"),
        ('health = {sql = " "}', "give an SQL expression as text"),
        ('health = {patience = "25h"}', "give a duration from 0s to 1d"),
        ('health = {yield_after = "1ms"}', "give a duration from 50ms to 1m"),
    ],
)
def test_what_can_not_be_used_is_refused(load: Load, text: str, told: str) -> None:
    with pytest.raises(ConfigurationRefused) as refused:
        load(REQUIRED + EVENTS + text + "\n")
    assert told in refused.value.message


def test_a_wrong_limit_for_all_is_told_once_and_where_it_stands(load: Load) -> None:
    with pytest.raises(ConfigurationRefused) as refused:
        load(REQUIRED + "[health]\nmax_lock_waiters = -1\n" + EVENTS)
    assert refused.value.message.startswith("health.max_lock_waiters = -1: give a whole number")
    assert refused.value.message.count("\n") == 0
