"""Nobody waits behind us for long: what may take long is not begun unwatched, nor goes on so."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.policies.result import StopReason
from housekeeping.stores.postgres import blocking
from tests.conditions import wait_until
from tests.integration import runs
from tests.integration.database import Database
from tests.integration.partitions import attached, fill, partitioned, states
from tests.integration.upkeep import (
    INVALID,
    ONE,
    SIZE,
    a_snapshot,
    done,
    entry,
    policy_on,
    run,
    running,
    wait_until_reindexing_waits,
)

WATCHING = "SELECT pid FROM pg_stat_activity WHERE application_name = 'hk:watch' AND usename = %s"
TERMINATE = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'hk:watch'"
)
# It may not ask where the data lies.
REBUILD = ONE | {"reindex_limits": replace(ONE["reindex_limits"], disk_size=10**12)}


def guest_of(database: Database) -> str:
    return "guest_" + str(database.one("SELECT current_database()"))


def allow(database: Database, connections: int) -> None:
    database.run(f"ALTER ROLE {guest_of(database)} CONNECTION LIMIT {connections}")


@contextmanager
def as_guest(database: Database, table: str, connections: int) -> Iterator[Database]:
    """The database as it is for the owner of a table, who has so many connections."""
    guest = guest_of(database)
    database.run(f"CREATE ROLE {guest} LOGIN")
    allow(database, connections)
    owned = [table, *(part for part in attached(database, table))]
    for each in owned:
        database.run(f"ALTER TABLE {each} OWNER TO {guest}")
    name = database.one("SELECT current_database()")
    database.run(
        f"GRANT CREATE ON DATABASE {name} TO {guest}; GRANT ALL ON SCHEMA public TO {guest}"
    )
    try:
        yield Database(database.url.replace("postgres@", f"{guest}@", 1), database.version)
    finally:
        database.run(f"DROP OWNED BY {guest} CASCADE; DROP ROLE {guest}")


def test_a_rebuild_nobody_could_watch_is_not_begun(jobs: Database, around: Surroundings) -> None:
    before = jobs.one(SIZE)
    with as_guest(jobs, "jobs", connections=2) as theirs:  # the run's, and the rebuild's
        result = run(policy_on(theirs, "jobs", **REBUILD), around)

        assert done(result, "public.jobs") == [("reindex", "skipped")]
        told = entry(result, "public.jobs")["actions"][0]["told"]
        assert "nobody can watch: " in told
        assert "too many connections" in told
        assert (result.stop_reason, result.success) == (StopReason.THROTTLED, False)
        assert jobs.one(SIZE) == before


def test_a_rebuild_ends_when_nobody_watches_it_any_more(
    jobs: Database, around: Surroundings
) -> None:
    with as_guest(jobs, "jobs", connections=3) as theirs:
        policy = policy_on(theirs, "jobs", **REBUILD)
        with a_snapshot(jobs), running(policy, around) as ours:
            wait_until_reindexing_waits(jobs)
            wait_until(lambda: jobs.one("SELECT artefact FROM housekeeping.rebuild"), 10)
            allow(jobs, 2)
            jobs.run(TERMINATE)
            result = ours.result(30)

        assert done(result, "public.jobs") == [("reindex", "yielded")]
        told = entry(result, "public.jobs")["actions"][0]["told"]
        assert "nobody could see any more whether somebody waits for us" in told
        assert result.stop_reason is StopReason.THROTTLED
        allow(jobs, 10)
        assert done(run(policy, around), "public.jobs") == [("reindex", "done")]
        assert jobs.column(INVALID) == []


def test_a_watch_that_loses_its_connection_opens_another_and_the_rebuild_goes_on(
    jobs: Database, around: Surroundings
) -> None:
    guest = guest_of(jobs)
    with as_guest(jobs, "jobs", connections=10) as theirs:
        policy = policy_on(theirs, "jobs", **REBUILD)
        with a_snapshot(jobs) as user, running(policy, around) as ours:
            wait_until_reindexing_waits(jobs)
            first = wait_until(lambda: jobs.column(WATCHING, guest), 10)
            jobs.run(TERMINATE)
            wait_until(lambda: set(jobs.column(WATCHING, guest)) - set(first) or ours.done(), 10)
            assert not ours.done()
            user.rollback()
            result = ours.result(30)

        assert done(result, "public.jobs") == [("reindex", "done")]


def test_a_partition_is_not_detached_where_nobody_could_watch(
    database: Database, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine the run's own watch would take the connection that the detaching needs.
    monkeypatch.setattr(blocking, "_EVERY_SECONDS", 60.0)
    partitioned(database)
    fill(database)
    before = attached(database)
    with as_guest(database, "events", connections=2) as theirs:  # the run's, and the detaching's
        result = runs.run(runs.policy_on(theirs), around)

        assert attached(database) == before
        assert (result.success, result.details["partitions_detached"]) == (False, 0)
        assert any("nobody can watch: " in warning for warning in result.warnings), result
        assert set(states(database).values()) == {"withdrawn"}
