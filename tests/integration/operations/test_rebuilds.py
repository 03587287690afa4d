"""REINDEX CONCURRENTLY by need: what is rebuilt, what stands against it, and what it leaves."""

from dataclasses import replace
from datetime import timedelta

from housekeeping.engine.run import Surroundings
from housekeeping.policies.events import Event, EventStream, StepProgress
from housekeeping.policies.maintenance import When
from housekeeping.policies.result import StopReason
from tests.conditions import wait_until
from tests.integration.database import Database
from tests.integration.upkeep import (
    BY_NEED,
    EAGER_REINDEX,
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


def test_bloated_indexes_are_rebuilt_the_worst_first(jobs: Database, around: Surroundings) -> None:
    before = jobs.one(SIZE)

    result = run(policy_on(jobs, "jobs", **BY_NEED), around)

    actions = entry(result, "public.jobs")["actions"]
    assert [each["reason"].partition(":")[0] for each in actions] == ["jobs_token", "jobs_pkey"]
    assert "bloat 7" in actions[0]["reason"]
    assert ">= 30%" in actions[0]["reason"]
    assert done(result, "public.jobs") == [("reindex", "done")] * 2
    assert actions[0]["size_before"] == before
    assert actions[0]["size_after"] == jobs.one(SIZE) < before / 2
    assert actions[0]["bloat_before"] > 0.6
    assert actions[0]["bloat_after"] < 0.1
    assert (
        entry(result, "public.jobs")["bloat_after"] < entry(result, "public.jobs")["bloat_before"]
    )
    assert (result.details["reindexed"], result.success) == (2, True)
    assert jobs.column(INVALID) == []


def test_an_index_that_measures_better_than_it_is_estimated_is_left(
    jobs: Database, around: Surroundings
) -> None:
    jobs.run("REINDEX TABLE jobs")
    jobs.run("UPDATE pg_class SET reltuples = 100 WHERE relname = 'jobs_token'")

    result = run(policy_on(jobs, "jobs", **ONE | {"reindex_limits": EAGER_REINDEX}), around)

    if jobs.version < 18:  # pgstattuple is there
        assert done(result, "public.jobs") == [("reindex", "not needed")]
        assert "measured: " in entry(result, "public.jobs")["actions"][0]["told"]
    else:
        assert done(result, "public.jobs") == [("reindex", "done")]
    assert result.success


def test_at_most_so_many_in_a_run_and_none_again_before_its_cooldown(
    jobs: Database, around: Surroundings
) -> None:
    policy = policy_on(jobs, "jobs", **BY_NEED)
    one = replace(policy, reindex_limits=replace(EAGER_REINDEX, max_indexes=1))

    first = run(one, around)
    jobs.run(
        "UPDATE pg_class SET reltuples = 10 WHERE relname = 'jobs_token'"
    )  # seems bloated again
    second = run(one, around)

    assert [each["outcome"] for each in entry(first, "public.jobs")["actions"]] == [
        "done",
        "skipped",
    ]
    assert (first.stop_reason, first.success) == (StopReason.ROW_BUDGET, False)
    (again,) = entry(second, "public.jobs")["actions"]
    assert again["reason"].startswith("jobs_pkey")
    assert second.success


def test_always_rebuilds_all_that_can_be_and_leaves_exclusion_constraints(
    jobs: Database, around: Surroundings
) -> None:
    jobs.run(
        "CREATE TABLE stays (id int PRIMARY KEY, during tsrange, EXCLUDE USING gist (during WITH &&))"
    )

    result = run(policy_on(jobs, "stays", **BY_NEED | {"reindex": When.ALWAYS}), around)

    (action,) = entry(result, "public.stays")["actions"]
    assert action["reason"] == "stays_pkey: always"
    assert result.success


def test_an_old_transaction_is_named_and_nothing_begun(
    jobs: Database, around: Surroundings
) -> None:
    with a_snapshot(jobs):
        result = run(policy_on(jobs, "jobs", **ONE, old_transaction=timedelta(0)), around)

    assert done(result, "public.jobs") == [("reindex", "skipped")]
    assert "a long report" in entry(result, "public.jobs")["actions"][0]["told"]
    assert (result.stop_reason, result.success) == (StopReason.THROTTLED, False)
    assert jobs.count("housekeeping.rebuild") == 0


def test_a_disk_without_room_is_no_place_for_a_rebuild(
    jobs: Database, around: Surroundings
) -> None:
    vast = replace(ONE["reindex_limits"], headroom=1e12)

    result = run(policy_on(jobs, "jobs", **ONE | {"reindex_limits": vast}), around)

    assert done(result, "public.jobs") == [("reindex", "skipped")]
    assert "of the disk are free" in entry(result, "public.jobs")["actions"][0]["told"]


def test_an_index_whose_rebuilds_keep_failing_is_left_to_an_operator(
    jobs: Database, around: Surroundings
) -> None:
    policy = policy_on(jobs, "jobs", **ONE)
    run(replace(policy, reindex=When.NEVER), around)  # makes the ledger
    jobs.run(
        "INSERT INTO housekeeping.rebuild (run_id, table_oid, index_oid, index_name, known, ended_at,"
        " done) SELECT gen_random_uuid(), 1, 1, 'public.jobs_token', '{}', now(), false"
        " FROM generate_series(1, 3)"
    )

    result = run(policy, around)

    assert result.details["reindexed"] == 0
    (told,) = [warning for warning in result.warnings if "its last 3 rebuilds failed" in warning]
    assert 'REINDEX INDEX CONCURRENTLY "public"."jobs_token"' in told


def test_progress_is_told_while_it_goes(jobs: Database, around: Surroundings) -> None:
    heard: list[Event] = []
    listening = Surroundings(around.redis, events=EventStream([heard.append]))
    with a_snapshot(jobs) as report, running(policy_on(jobs, "jobs", **ONE), listening) as ours:
        wait_until_reindexing_waits(jobs)
        wait_until(lambda: any(isinstance(event, StepProgress) for event in heard), 10)
        report.rollback()
        ours.result(30)

    told = next(event for event in heard if isinstance(event, StepProgress))
    assert told.step == "reindex public.jobs_token"
    assert told.phase.startswith("waiting for")
    assert 0 <= told.percent < 100


def test_what_a_dry_run_says_of_indexes_is_what_a_run_does(
    jobs: Database, around: Surroundings
) -> None:
    dry = run(policy_on(jobs, "jobs", **BY_NEED), around, dry_run=True)
    real = run(policy_on(jobs, "jobs", **BY_NEED), around)

    assert [(a["work"], a["reason"]) for a in entry(dry, "public.jobs")["actions"]] == [
        (a["work"], a["reason"]) for a in entry(real, "public.jobs")["actions"]
    ]
