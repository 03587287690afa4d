"""Whose archives a policy drops: those of the very table it names, also once that table is gone."""

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.policies.archive import ArchiveTo
from housekeeping.policies.errors import TableMissing
from housekeeping.policies.purge import TableName
from tests.integration.archived import archive_two_months, archiving, expire, expiring, there
from tests.integration.database import Database
from tests.integration.runs import run


@pytest.fixture
def twins(events: Database, around: Surroundings) -> Database:
    """Archives of `app.events` and of `public.events`; neither table is there any more."""
    archive_two_months(events, around)
    events.run("CREATE SCHEMA app CREATE TABLE events (id int PRIMARY KEY, created_at timestamptz)")
    events.run("INSERT INTO app.events VALUES (1, '2024-01-10')")
    theirs = TableName("events", "app")
    run(archiving(events, table=theirs, archive=ArchiveTo(prefix="app_old")), around)  # type: ignore[arg-type]
    events.run("DROP TABLE app.events; DROP TABLE public.events")
    return events


def test_a_table_of_that_name_in_another_schema_is_not_the_one_that_is_meant(
    events: Database, around: Surroundings
) -> None:
    archive_two_months(events, around)
    with pytest.raises(TableMissing, match=r"audit\.events"):
        expire(expiring(events, source=TableName("events", "audit")), around)
    assert len(there(events)) == 2


def test_of_two_tables_that_are_gone_the_one_in_that_schema_is_meant(
    twins: Database, around: Surroundings
) -> None:
    result = expire(expiring(twins, source=TableName("events", "public")), around)

    assert (result.success, result.total) == (True, 2)
    assert there(twins) == []
    assert twins.count("app.app_old_2024_01") == 1


def test_a_name_that_may_mean_either_of_two_tables_that_are_gone_is_refused(
    twins: Database, around: Surroundings
) -> None:
    with pytest.raises(TableMissing):
        expire(expiring(twins, source=TableName("events")), around)
    assert len(there(twins)) == 2
    assert twins.count("app.app_old_2024_01") == 1


def test_what_another_policy_answers_for_is_told_by_its_schema_too(
    twins: Database, around: Surroundings
) -> None:
    rest = expiring(twins, source=None, but=(TableName("events", "public"),))

    assert expire(rest, around).total == 1

    assert len(there(twins)) == 2
