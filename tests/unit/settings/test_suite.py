import json
from datetime import timedelta

import pytest
from pydantic import ValidationError

import settings
from housekeeping.policies.archive import ArchiveIndex, ArchiveTo
from housekeeping.policies.errors import ConfigurationRefused
from settings import OPERATIONS
from tests.unit.settings.conftest import REQUIRED, Load

EVENTS = '[tables.events]\ntable = "events"\nage = "at"\nkeep_for = "30d"\n'
OFF = '[tables.off]\ntable = "x"\nage = "at"\nkeep_for = "30d"\nenabled = false\n'


def test_redis_serves_for_all_that_celery_needs(load: Load) -> None:
    suite = load()
    assert suite.broker_url == suite.result_backend == suite.redis_url
    assert suite.queue == "housekeeping"
    assert suite.splay == suite.visibility_timeout == timedelta(seconds=60)
    assert suite.lease_ttl == timedelta(seconds=30)
    assert suite.metrics_port is None
    assert suite.milvaion is None
    assert suite.all_policies() == ()


def test_broker_and_results_may_be_elsewhere(load: Load) -> None:
    suite = load(REQUIRED + 'broker_url = "amqp://mq"\nresult_backend = "rpc://"\nsplay = 0\n')
    assert suite.broker_url.reveal() == "amqp://mq"
    assert suite.result_backend.reveal() == "rpc://"
    assert suite.splay == timedelta(0)


def test_a_redis_socket_is_handed_to_celery_in_its_own_words(load: Load) -> None:
    suite = load('redis_url = "unix:///run/r.sock?db=1"\n')
    assert suite.redis_url.reveal() == "unix:///run/r.sock?db=1"
    assert suite.broker_url.reveal() == "redis+socket:///run/r.sock?virtual_host=1"


EXPIRY = '[milvaion.archive_expiry]\nkeep_for = "400d"\n'


def test_a_policy_is_found_by_name(load: Load) -> None:
    archived = '[tables.old]\ntable = "x"\nage = "at"\nkeep_for = "1d"\narchive = {}\n'
    suite = load(REQUIRED + EVENTS + OFF + archived + "[milvaion.archive]\n" + EXPIRY)
    assert [policy.name for policy in suite.policies("tables.purge")] == ["events"]
    assert [policy.name for policy in suite.policies("tables.purge", "events")] == ["events"]
    assert {policy.operation for policy in suite.all_policies()} == set(OPERATIONS)


def test_milvaions_archive_runs_when_asked_and_by_itself_once_its_section_is_there(
    load: Load,
) -> None:
    suite = load(REQUIRED + "[milvaion]\n")
    assert [policy.name for policy in suite.policies("occurrences.archive")] == ["milvaion"]
    assert "occurrences.archive" not in {policy.operation for policy in suite.all_policies()}
    suite = load(REQUIRED + "[milvaion.archive]\n")
    assert "occurrences.archive" in {policy.operation for policy in suite.all_policies()}


def test_a_table_with_an_archive_is_archived_instead_of_purged(load: Load) -> None:
    suite = load(
        REQUIRED + '[tables.old]\ntable = ["app", "events"]\nage = "at"\nkeep_for = "1d"\n'
        '[tables.old.archive]\nschema = "cold"\nmonth_of = "run"\nindexes = [["job_id", "at"]]\n'
    )
    (policy,) = suite.policies("tables.archive")
    assert policy.archive == ArchiveTo(
        prefix="events_archive",
        schema="cold",
        month_of="run",
        indexes=(ArchiveIndex(columns=("job_id", "at")),),
    )
    with pytest.raises(ConfigurationRefused, match="has no policy"):
        suite.policies("tables.purge")


@pytest.mark.parametrize(
    ("operation", "name", "told"),
    [
        ("tables.purge", "evnts", 'tables.purge has no policy "evnts"; did you mean "events"?'),
        ("tables.purge", "zzz", "accepted are events, off"),
        ("tables.purge", "off", 'tables.purge: policy "off" is disabled; set its enabled = true'),
        ("occurrences.retention", None, "a section [milvaion] switches it on"),
        ("dead_letters.cleanup", "milvaion", "a section [milvaion] switches it on"),
        ("tables.perge", None, 'unknown operation "tables.perge"; did you mean "tables.purge"?'),
    ],
)
def test_what_can_not_be_run_is_refused(
    load: Load, operation: str, name: str | None, told: str
) -> None:
    suite = load(REQUIRED + EVENTS + OFF)
    with pytest.raises(ConfigurationRefused) as refused:
        suite.policies(operation, name)
    assert told in refused.value.message


def test_all_policies_disabled_is_nothing_to_do(load: Load) -> None:
    suite = load(REQUIRED + OFF)
    assert suite.policies("tables.purge") == ()
    assert suite.all_policies() == ()


def test_settings_can_not_be_changed(load: Load) -> None:
    suite = load()
    with pytest.raises(ValidationError):
        suite.queue = "other"  # type: ignore[misc]


def test_a_description_is_json_and_tells_what_follows(load: Load) -> None:
    described = load(REQUIRED + EVENTS + OFF).describe()
    assert json.loads(json.dumps(described)) == described
    assert described["broker_url"] == "redis://cache:6379/0"
    assert described["tables"]["events"]["keep_for"] == "30d"
    assert described["policies"] == [
        {
            "operation": "tables.purge",
            "name": "events",
            "table": "events",
            "enabled": True,
            "scheduled": True,
        },
        {
            "operation": "tables.purge",
            "name": "off",
            "table": "x",
            "enabled": False,
            "scheduled": True,
        },
    ]


def test_the_package_hands_out_what_others_need() -> None:
    assert sorted(settings.__all__) == ["OPERATIONS", "StoreUrl", "Suite", "load"]
