"""VACUUM and ANALYZE by need: what is done, why, and what the result says of it."""

from dataclasses import replace

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.operations.maintenance_inspection import inspect_maintenance
from housekeeping.operations.records import past_runs
from housekeeping.policies.errors import PolicyRefused
from housekeeping.policies.events import Event, EventStream
from housekeeping.policies.maintenance import VacuumLimits, When
from housekeeping.policies.pace import Pace
from housekeeping.policies.result import RunResult, StopReason
from settings.hours import parse_hours
from tests.conditions import wait_until
from tests.integration.database import Database
from tests.integration.upkeep import done, entry, policy_on, run

FILL = """
    CREATE TABLE events (id bigint PRIMARY KEY, note text) WITH (autovacuum_enabled = false);
    INSERT INTO events SELECT i, 'note ' || i FROM generate_series(1, 10000) i;
"""
VACUUMED = [("vacuum", "done"), ("analyze", "done")]


@pytest.fixture
def events(database: Database) -> Database:
    database.run(FILL)
    # A session tells what it inserted when it ends; told after VACUUM, the rows would count twice.
    inserted = "SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'events'"
    wait_until(lambda: database.one(inserted) == 10_000, 10)
    database.run("VACUUM ANALYZE events")
    return database


def test_a_table_without_need_is_left_alone_and_its_thresholds_are_told(
    events: Database, around: Surroundings
) -> None:
    events.run("DELETE FROM events WHERE id <= 50")

    rehearsed = run(policy_on(events, "events"), around, dry_run=True)
    result = run(policy_on(events, "events"), around)

    assert (result.stop_reason, result.success, result.total) == (StopReason.EXHAUSTED, True, 0)
    told = entry(result, "public.events")
    assert entry(rehearsed, "public.events")["note"] == told["note"]
    assert told["actions"] == []
    assert "dead rows 50 <= 100" in told["note"]
    assert "changed rows 50 <= 100" in told["note"]
    assert events.one("SELECT vacuum_count FROM pg_stat_user_tables WHERE relname = 'events'") == 1


def test_dead_rows_above_the_threshold_are_vacuumed_and_statistics_gathered_after(
    events: Database, around: Surroundings
) -> None:
    events.run("DELETE FROM events WHERE id <= 3000")

    result = run(policy_on(events, "events"), around)

    told = entry(result, "public.events")
    assert [(each["work"], each["reason"]) for each in told["actions"]] == [
        ("vacuum", "dead rows 3,000 > 100"),
        ("analyze", "after VACUUM"),
    ]
    assert done(result, "public.events") == VACUUMED
    assert (told["dead_rows_before"], told["dead_rows_after"]) == (3_000, 0)
    assert told["size_before"] >= told["size_after"] > 0
    assert told["bloat_before"] is not None
    assert (result.total, result.success) == (3_000, True)
    assert result.details == {
        "tables": 1, "vacuumed": 1, "analyzed": 1, "reindexed": 0, "skipped": 0, "failed": 0,
        "leftovers_removed": 0,
    }  # fmt: skip
    assert result.as_dict()["total_cleaned"] == 3_000


def test_both_thresholds_have_to_be_passed(events: Database, around: Surroundings) -> None:
    events.run("DELETE FROM events WHERE id <= 300")
    share = VacuumLimits(dead_rows=100, dead_share=0.5)

    result = run(policy_on(events, "events", vacuum_limits=share), around)

    assert entry(result, "public.events")["actions"][0]["work"] == "analyze"
    assert result.details["vacuumed"] == 0


def test_indexes_are_cleaned_even_where_the_server_would_leave_them(
    events: Database, around: Surroundings
) -> None:
    """Under 2 % of pages with dead rows VACUUM skips the indexes: a queue's head stays slow."""
    events.run("INSERT INTO events SELECT i, 'note ' || i FROM generate_series(10001, 400000) i;")
    events.run("VACUUM ANALYZE events")
    events.run("DELETE FROM events WHERE id <= 4000")  # 1 %

    def buffers() -> int:
        (plan,) = events.column(
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT min(id) FROM events"
        )
        return int(plan[0]["Plan"]["Shared Hit Blocks"]) + int(
            plan[0]["Plan"]["Shared Read Blocks"]
        )

    events.run("VACUUM events")
    before = buffers()
    events.run("DELETE FROM events WHERE id <= 4001")  # so that there is something to be vacuumed
    result = run(policy_on(events, "events", vacuum=When.ALWAYS), around)

    assert done(result, "public.events") == VACUUMED
    assert buffers() < before / 3


def test_always_is_always(events: Database, around: Surroundings) -> None:
    policy = policy_on(events, "events", vacuum=When.ALWAYS, analyze=When.ALWAYS)

    result = run(policy, around)

    assert [each["reason"] for each in entry(result, "public.events")["actions"]] == [
        "always",
        "after VACUUM",
    ]


def test_never_is_never(events: Database, around: Surroundings) -> None:
    events.run("DELETE FROM events WHERE id <= 3000")
    policy = policy_on(events, "events", vacuum=When.NEVER, analyze=When.NEVER)

    assert run(policy, around).details["analyzed"] == 0
    assert (
        events.one("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'events'") == 3_000
    )


def test_without_tables_all_that_are_in_need_are_done(
    events: Database, around: Surroundings
) -> None:
    events.run("CREATE TABLE fresh (id int)")
    events.run("INSERT INTO fresh SELECT generate_series(1, 10)")
    events.run("DELETE FROM events WHERE id <= 3000")

    result = run(policy_on(events), around)

    assert done(result, "public.events") == VACUUMED
    assert done(result, "public.fresh") == [("analyze", "done")]
    assert "never analyzed" in entry(result, "public.fresh")["actions"][0]["reason"]


def test_an_old_table_is_frozen_before_autovacuum_is_forced_to(
    events: Database, around: Surroundings
) -> None:
    events.run("ALTER TABLE events SET (autovacuum_freeze_max_age = 100000)")
    events.run(
        "CREATE PROCEDURE burn(n int) LANGUAGE plpgsql AS"
        " $$ BEGIN FOR i IN 1..n LOOP PERFORM txid_current(); COMMIT; END LOOP; END $$"
    )
    events.run("CALL burn(3000)")
    limits = VacuumLimits(freeze_share=0.02, freeze_warn_share=0.01)
    policy = policy_on(events, "events", vacuum_limits=limits)
    frozen = "SELECT age(relfrozenxid) FROM pg_class WHERE relname = 'events'"
    before = events.one(frozen)

    events.run(
        "ALTER DATABASE "
        + events.one("SELECT current_database()")
        + " SET vacuum_freeze_min_age = 0"
    )
    result = run(policy, around)

    (warning,) = [each for each in result.warnings if "autovacuum_freeze_max_age" in each]
    assert "public.events at 3%" in warning
    assert "age 3% of autovacuum_freeze_max_age >= 2%" in str(result.tables)
    assert events.one(frozen) < before - 2_900
    assert result.success


def test_partitions_are_done_each_and_the_parent_gets_statistics(
    database: Database, around: Surroundings
) -> None:
    database.run(
        "CREATE TABLE log (id int, at date) PARTITION BY RANGE (at);"
        "CREATE TABLE log_1 PARTITION OF log FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');"
        "CREATE TABLE log_2 PARTITION OF log FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');"
        "ALTER TABLE log_1 SET (autovacuum_enabled = false);"
        "INSERT INTO log SELECT i, '2026-01-10' FROM generate_series(1, 1000) i"
    )
    database.run("DELETE FROM log WHERE id <= 500")

    result = run(policy_on(database, "log"), around)

    assert done(result, "public.log_1") == VACUUMED
    assert done(result, "public.log") == [("analyze", "done")]
    assert database.one("SELECT count(*) FROM pg_stats WHERE tablename = 'log' AND inherited")
    assert result.success


def test_a_failure_of_one_table_keeps_no_other_from_its_turn(
    events: Database, around: Surroundings
) -> None:
    events.run("CREATE TABLE others (id int)")
    events.run("INSERT INTO others SELECT generate_series(1, 1000)")
    events.run("DELETE FROM events WHERE id <= 3000")

    result = run(policy_on(events, "nowhere", "others", "events"), around)

    assert done(result, "public.events") == VACUUMED
    assert done(result, "public.others") == [("analyze", "done")]
    assert (result.success, result.exit_code, result.stop_reason) == (False, 1, StopReason.ERROR)
    assert "nowhere: there is no such table" in (result.error or "")
    assert result.details["failed"] == 1


def test_a_table_of_another_generation_is_told_and_no_failure(
    events: Database, around: Surroundings
) -> None:
    result = run(policy_on(events, "events", "WorkflowRuns", optional=True), around)

    assert result.success
    assert "generation" in entry(result, "WorkflowRuns")["note"]


def test_a_table_that_is_not_ours_fails_with_the_grant_to_ask_for(
    events: Database, around: Surroundings
) -> None:
    name = "guest_" + events.one("SELECT current_database()")
    events.run(
        f"CREATE ROLE {name} LOGIN; CREATE TABLE theirs (id int); ALTER TABLE theirs OWNER TO {name}"
    )
    database = events.one("SELECT current_database()")
    events.run(f"GRANT CREATE ON DATABASE {database} TO {name}; GRANT SELECT ON events TO {name}")
    as_guest = Database(events.url.replace("postgres@", f"{name}@", 1), events.version)
    assert "1 more may not be maintained" in inspect_maintenance(policy_on(as_guest)).told
    events.run("ALTER TABLE theirs OWNER TO postgres")
    nothing = "this role may maintain none of the database's 2 tables"
    assert nothing in "".join(inspect_maintenance(policy_on(as_guest)).warnings)
    events.run(f"ALTER TABLE theirs OWNER TO {name}")
    events.run("INSERT INTO theirs SELECT generate_series(1, 1000)")

    result = run(policy_on(as_guest, "events", "theirs"), around)

    assert done(result, "public.theirs") == [("analyze", "done")]
    assert not result.success
    asked = "GRANT MAINTAIN" if events.version >= 17 else 'GRANT "postgres" TO'
    assert asked in entry(result, "public.events")["error"]
    assert any("GRANT pg_monitor" in warning for warning in result.warnings)
    with pytest.raises(PolicyRefused, match=asked):
        inspect_maintenance(policy_on(as_guest, "events", "theirs"))


def test_a_dry_run_lists_what_it_would_do_and_changes_nothing(
    events: Database, around: Surroundings
) -> None:
    events.run("DELETE FROM events WHERE id <= 3000")

    result = run(policy_on(events, "events"), around, dry_run=True)

    assert result.plan is not None
    assert result.plan == {
        "would_do": 2,
        "details": {"vacuum": 1, "analyze": 1},
        "counted_all": True,
    }
    reasons = [each["reason"] for each in entry(result, "public.events")["actions"]]
    assert reasons == ["dead rows 3,000 > 100", "after VACUUM"]
    assert done(result, "public.events") == [("vacuum", "planned"), ("analyze", "planned")]
    assert (result.stop_reason, result.success) == (StopReason.DRY_RUN, True)
    assert events.one("SELECT to_regnamespace('housekeeping')") is None
    assert (
        events.one("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'events'") == 3_000
    )
    assert (
        "vacuum public.events (dead rows 3,000 > 100)"
        in inspect_maintenance(policy_on(events, "events")).told
    )


def test_outside_its_hours_nothing_is_done_and_it_is_told_when_they_begin(
    events: Database, around: Surroundings
) -> None:
    events.run("DELETE FROM events WHERE id <= 3000")
    opens = events.one("SELECT extract(hour FROM now() AT TIME ZONE 'UTC')::int") + 2
    hours = parse_hours(f"{opens % 24:02d}:00-{(opens + 1) % 24:02d}:00")
    closed = replace(policy_on(events, "events"), pace=Pace(only_between=hours))

    result = run(closed, around)

    assert (result.stop_reason, result.success) == (StopReason.THROTTLED, False)
    assert "it opens at" in result.warnings[0]
    assert events.one("SELECT vacuum_count FROM pg_stat_user_tables WHERE relname = 'events'") == 1


def test_a_limit_is_a_number_of_tables_the_neediest_first(
    events: Database, around: Surroundings
) -> None:
    events.run("CREATE TABLE others (id int)")
    events.run("INSERT INTO others SELECT generate_series(1, 1000)")
    events.run("DELETE FROM events WHERE id <= 3000")

    result = run(policy_on(events), around, limit=1)

    assert result.details["vacuumed"] == 1
    assert (result.stop_reason, result.success) == (StopReason.ROW_BUDGET, False)
    assert any("1 more tables are in need" in warning for warning in result.warnings)


def test_the_ledger_and_the_events_tell_of_every_step(
    events: Database, around: Surroundings
) -> None:
    events.run("DELETE FROM events WHERE id <= 3000")
    heard: list[Event] = []
    listening = Surroundings(around.redis, events=EventStream([heard.append]))

    result = run(policy_on(events, "events"), listening)

    names = [event.NAME for event in heard if "progress" not in event.NAME]
    assert names == [
        "housekeeping.run.started",
        "housekeeping.step.ended",
        "housekeeping.step.ended",
        "housekeeping.run.stopped",
    ]
    (past,) = past_runs([events.url], "database.maintain", "1 hour", 10)
    assert RunResult.from_dict(past["result"]).as_dict() == result.as_dict()


def test_a_name_is_a_name_whatever_is_in_it(database: Database, around: Surroundings) -> None:
    name = 'odd "name"; DROP TABLE x; 100% --'
    quoted = '"' + name.replace('"', '""') + '"'
    database.run(f"CREATE TABLE {quoted.replace('%', '%')} (id int)")
    database.run(f"INSERT INTO {quoted} SELECT generate_series(1, 1000)")

    result = run(policy_on(database, name, vacuum=When.ALWAYS), around)

    assert done(result, f"public.{name}") == VACUUMED
