"""Milvaion's tables of every generation, by the policy that the settings make of `[milvaion]`."""

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.operations.maintenance_inspection import inspect_maintenance
from housekeeping.policies.errors import PolicyRefused
from housekeeping.policies.maintenance import MaintenancePolicy
from settings.loading import load
from tests.integration.conftest import DatabaseFactory
from tests.integration.database import Database
from tests.integration.upkeep import entry, run

YOUNGER = {"public.JobOccurrenceLogs", "public.WorkflowRuns"}  # than the first generation


def policy_of(database: Database, **settings: str) -> MaintenancePolicy:
    given = {
        "HOUSEKEEPING__REDIS_URL": "redis://unused:6379/0",
        "HOUSEKEEPING__MILVAION__DATABASE_URL": database.url,
        "HOUSEKEEPING__MILVAION__SCHEMA": "public",
        **{f"HOUSEKEEPING__MILVAION__MAINTENANCE__{key}": value for key, value in settings.items()},
    }
    (policy,) = load(given).policies("database.maintain")
    assert isinstance(policy, MaintenancePolicy)
    return policy


@pytest.mark.parametrize("generation", ["V1", "V2", "V3", "V1 bare", "V3 bare"])
def test_every_generation_is_maintained_and_what_it_lacks_is_no_failure(
    generation: str,
    new_database: DatabaseFactory,
    milvaion_schemas: dict[str, str],
    around: Surroundings,
) -> None:
    database = new_database(milvaion_schemas[generation])
    policy = policy_of(database, VACUUM="always", REINDEX="always")

    result = run(policy, around)

    assert result.success, result
    lacking = YOUNGER if generation.startswith("V1") else set()
    noted = {each["table"] for each in result.tables if "generation" in each.get("note", "")}
    assert noted == lacking
    assert result.details["vacuumed"] == 5 - len(lacking)
    indexes = database.one(
        "SELECT count(*) FROM pg_indexes WHERE tablename IN ('JobOccurrences', 'JobOccurrenceLogs',"
        " 'ScheduledJobs', 'FailedOccurrences', 'WorkflowRuns')"
    )
    assert result.details["reindexed"] == indexes
    assert "reindex" in entry(result, "public.JobOccurrences")["done"]


def test_a_database_without_any_of_them_is_a_fault(
    database: Database, around: Surroundings
) -> None:
    result = run(policy_of(database), around)

    assert not result.success
    assert "there is no such table" in (result.error or "")
    with pytest.raises(PolicyRefused, match=r"no table public\.JobOccurrences"):
        inspect_maintenance(policy_of(database))
