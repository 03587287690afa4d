"""A server that can't be trusted to build indexes CONCURRENTLY; its version is all that is pretended."""

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.operations.maintenance_inspection import inspect_maintenance
from housekeeping.policies.errors import UnindexedForeignKey
from housekeeping.policies.maintenance import When
from housekeeping.policies.result import StopReason
from housekeeping.stores.postgres import concurrent_builds
from tests.integration import runs
from tests.integration.database import Database
from tests.integration.upkeep import BY_NEED, SIZE, done, entry, policy_on, run

REFUSED = "PostgreSQL 14.3 can leave rows out of an index"


@pytest.fixture(autouse=True)
def old_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concurrent_builds, "server_version", lambda _connection: 140003)


def test_no_index_is_rebuilt_and_all_other_work_is_done(
    jobs: Database, around: Surroundings
) -> None:
    before = jobs.one(SIZE)
    policy = policy_on(jobs, "jobs", **BY_NEED | {"vacuum": When.ALWAYS, "analyze": When.ALWAYS})

    result = run(policy, around)

    assert done(result, "public.jobs") == [
        ("vacuum", "done"), ("analyze", "done"), ("reindex", "skipped"), ("reindex", "skipped"),
    ]  # fmt: skip
    told = entry(result, "public.jobs")["actions"][2]["told"]
    assert REFUSED in told
    assert "update the server to 14.4" in told
    assert (result.stop_reason, result.success) == (StopReason.THROTTLED, False)
    assert any(f"no index is rebuilt: {REFUSED}" in warning for warning in result.warnings)
    assert jobs.one(SIZE) == before


def test_a_dry_run_and_check_say_so_too(jobs: Database, around: Surroundings) -> None:
    policy = policy_on(jobs, "jobs", **BY_NEED)

    planned = run(policy, around, dry_run=True)
    warnings = inspect_maintenance(policy).warnings

    assert done(planned, "public.jobs") == [("reindex", "skipped")] * 2
    assert planned.plan is not None
    assert planned.plan["would_do"] == 0
    assert any(REFUSED in warning for warning in warnings)


def test_whoever_rebuilds_nothing_is_not_warned(jobs: Database) -> None:
    assert not any(
        REFUSED in told for told in inspect_maintenance(policy_on(jobs, "jobs")).warnings
    )


def test_a_refusal_gives_a_line_that_builds_the_index_plainly(
    events: Database, around: Surroundings
) -> None:
    events.run("CREATE TABLE logs (event bigint REFERENCES events ON DELETE CASCADE)")

    with pytest.raises(UnindexedForeignKey) as refused:
        runs.run(runs.policy_on(events), around)

    assert REFUSED in refused.value.message
    assert refused.value.message.endswith('*/ CREATE INDEX ON "public"."logs" ("event")')
