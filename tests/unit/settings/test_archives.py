import json
from datetime import timedelta

import pytest

from housekeeping.policies.archives import ArchiveExpiryPolicy
from housekeeping.policies.errors import ConfigurationRefused
from housekeeping.policies.purge import TableName
from tests.unit.settings.conftest import REQUIRED, Load

OPERATION = "database.drop_expired_archives"
EVENTS = '[archives.events]\nsource = "events"\nkeep_for = "365d"\n'


def policies(load: Load, text: str) -> list[ArchiveExpiryPolicy]:
    found = load(REQUIRED + text).policies(OPERATION)
    return [policy for policy in found if isinstance(policy, ArchiveExpiryPolicy)]


def test_without_an_age_nothing_is_ever_dropped(load: Load) -> None:
    with pytest.raises(ConfigurationRefused, match="has no policy"):
        load(REQUIRED + "[milvaion.archive]\n").policies(OPERATION)
    for text in ('[archives.x]\nsource = "x"\n', "[milvaion.archive_expiry]\n"):
        with pytest.raises(ConfigurationRefused, match="keep_for: missing: say how long"):
            load(REQUIRED + text)


def test_a_tables_archives_are_kept_as_long_as_it_says(load: Load) -> None:
    (policy,) = policies(load, EVENTS)
    assert (policy.name, policy.source) == ("events", TableName("events"))
    assert (policy.keep_for, policy.export, policy.undated) == (timedelta(days=365), None, False)
    assert policy.total_key == "total_cleaned"


def test_milvaions_archives_are_those_of_its_occurrences(load: Load) -> None:
    (policy,) = policies(
        load,
        '[milvaion]\nschema = "jobs"\n[milvaion.archive_expiry]\nkeep_for = "2y"\n'.replace(
            "2y", "700d"
        ),
    )
    assert (policy.name, policy.source) == ("milvaion", TableName("JobOccurrences", "jobs"))


def test_an_export_is_described_without_its_secrets(load: Load) -> None:
    suite = load(
        REQUIRED + EVENTS + 'export_to = "s3://kEy:sEcr3t@bucket/archives"\nformat = "csv"\n'
    )
    (policy,) = suite.policies(OPERATION)
    assert isinstance(policy, ArchiveExpiryPolicy)
    assert policy.export is not None
    assert policy.export.url == "s3://kEy:sEcr3t@bucket/archives"
    assert (policy.export.format, policy.export.compression) == ("csv", "gzip")
    for text in (json.dumps(suite.describe()), repr(suite), repr(policy), str(policy)):
        assert "sEcr3t" not in text


def test_all_leaves_alone_what_another_section_names(load: Load) -> None:
    text = (
        '[archives.rest]\nall = true\nkeep_for = "90d"\n'
        + EVENTS
        + '[archives.elsewhere]\nsource = "orders"\nkeep_for = "9d"\ndatabase_url = "postgresql://o@h/d"\n'
        + '[milvaion.archive_expiry]\nkeep_for = "700d"\n'
    )
    found = {policy.name: policy for policy in policies(load, text)}
    assert found["rest"].source is None
    assert set(found["rest"].but) == {TableName("events"), TableName("JobOccurrences")}
    assert found["events"].but == ()


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ('keep_for = "1d"', "source: missing: name the table"),
        ('keep_for = "1d"\nsource = "x"\nall = true', "all: can't stand beside source"),
        ('keep_for = "0s"\nall = true', "keep_for"),
        ('keep_for = "1d"\nall = true\nwhere = "x"', "where: can't be met: whole months go"),
        ('keep_for = "1d"\nall = true\nformat = "csv"', "format: says how to export"),
        ('keep_for = "1d"\nall = true\nexport_to = "backups"', "export_to: is no absolute path"),
        ('keep_for = "1d"\nall = true\nexport_to = "memory://x"', "export_to: keeps no files"),
        ('keep_for = "1d"\nall = true\nexport_to = "a::s3://x"', "export_to: keeps no files"),
        ('keep_for = "1d"\nall = true\nexport_to = "/x"\nformat = "xml"', "format"),
        ('keep_for = "1d"\nall = true\nexport_to = "/x"\nformat = "csv"\ncompression = "zstd"',
         "compression: does not go with the format"),
        ('keep_for = "1d"\nall = true\nexprt_to = "/x"', "exprt_to"),
    ],
)  # fmt: skip
def test_what_can_not_be_meant_is_refused(load: Load, keys: str, told: str) -> None:
    with pytest.raises(ConfigurationRefused) as refused:
        load(REQUIRED + f"[archives.x]\n{keys}\n")
    assert told in refused.value.message.replace("archives.x.", ""), refused.value.message


def test_the_environment_names_archives_too(load: Load) -> None:
    environment = {
        "HOUSEKEEPING__ARCHIVES__EVENTS__SOURCE": "events",
        "HOUSEKEEPING__ARCHIVES__EVENTS__KEEP_FOR": "30d",
        "HOUSEKEEPING__ARCHIVES__EVENTS__EXPORT_TO": "/backups",
    }
    (policy,) = load(REQUIRED, environment).policies(OPERATION)
    assert isinstance(policy, ArchiveExpiryPolicy)
    assert policy.export is not None
    assert policy.export.format == "parquet"


def test_archives_need_a_database(load: Load) -> None:
    with pytest.raises(ConfigurationRefused, match=r"archives\.events\.database_url"):
        load('redis_url = "redis://c/0"\n' + EVENTS)


@pytest.mark.parametrize(("keep", "sound"), [("20d", False), ("30d", False), ("31d", True)])
@pytest.mark.parametrize("whose", ['source = "events"', "all = true"])
def test_how_old_rows_are_when_they_come_is_known_to_what_drops_them(
    load: Load, keep: str, *, sound: bool, whose: str
) -> None:
    (policy,) = policies(
        load,
        '[tables.e]\ntable = "events"\nage = "at"\nkeep_for = "30d"\narchive = {}\n'
        f'[archives.e]\n{whose}\nkeep_for = "{keep}"\n',
    )
    assert policy.archived_after == timedelta(days=30)
    assert (policy.keep_for > policy.archived_after) == sound


def test_rows_that_are_archived_by_the_month_of_the_run_come_at_any_age(load: Load) -> None:
    (policy,) = policies(
        load,
        '[tables.e]\ntable = "events"\nage = "at"\nkeep_for = "30d"\n'
        '[tables.e.archive]\nmonth_of = "run"\n' + EVENTS,
    )
    assert policy.archived_after is None
