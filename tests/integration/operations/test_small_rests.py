"""A run that rests takes its windows in slices, all of them in one transaction."""

import time
from dataclasses import replace
from datetime import timedelta

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.policies.events import Event, WindowShrunk
from housekeeping.policies.health import HealthLimits
from housekeeping.policies.result import StopReason
from tests.conditions import wait_until
from tests.integration.archives import archived, archiving
from tests.integration.database import Database
from tests.integration.holding import place
from tests.integration.runs import (
    BRISK,
    ledger_rows,
    listening,
    per_status,
    policy_on,
    run,
    running,
)

ROWS = 30_000
SLOWLY = replace(BRISK, duty=0.5, first_window_rows=20_000, batch_target=timedelta(seconds=1))


@pytest.fixture
def old(events: Database) -> Database:
    """Rows of two kinds, three to an age, all but every tenth of them expired."""
    events.run(
        "INSERT INTO events SELECT i, now() - CASE WHEN i %% 10 > 0 THEN interval '60 days'"
        " ELSE interval '1 day' END - i / 3 * interval '1 second', (ARRAY['a', 'b'])[1 + i %% 2],"
        " repeat('n', 50)"
        " FROM generate_series(1, %s) i",
        ROWS,
    )
    events.run("CREATE INDEX IF NOT EXISTS by_age ON events (created_at); ANALYZE events")
    return events


@pytest.mark.parametrize("walker", ["heap", "index"])
@pytest.mark.parametrize(
    ("given", "counts"),
    [
        ({}, {"expired": 27_000}),
        ({"rules": per_status(a=30, b=30)}, {"a": 12_000, "b": 15_000}),
        ({"rules": per_status(b=30)}, {"b": 15_000}),
    ],
)
def test_the_slices_of_a_window_are_counted_together(
    old: Database,
    around: Surroundings,
    walker: str,
    given: dict[str, object],
    counts: dict[str, int],
) -> None:
    result = run(policy_on(old, **{"pace": SLOWLY, **given}), around, walker=walker)

    assert result.success
    assert dict(result.details) == counts
    assert result.total == sum(counts.values()) == ROWS - old.count("events") == ledger_rows(old)
    assert result.batches <= 5
    assert result.phases.wait > 0


@pytest.mark.parametrize("walker", ["heap", "index"])
def test_the_slices_of_an_archive_all_arrive(
    old: Database, around: Surroundings, walker: str
) -> None:
    result = run(archiving(old, pace=SLOWLY), around, walker=walker)

    assert (result.success, result.total) == (True, 27_000)
    assert sum(archived(old).values()) == 27_000


def test_what_refuses_in_a_late_slice_takes_the_earlier_ones_back_with_it(
    old: Database, around: Surroundings
) -> None:
    old.run(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN IF OLD.id = 17999 THEN RAISE ''kept''; END IF; RETURN OLD; END';"
        "CREATE TRIGGER keep BEFORE DELETE ON events FOR EACH ROW EXECUTE FUNCTION keep()"
    )
    told: list[int] = []

    def hear(event: object) -> None:
        told.append(ledger_rows(old) - (ROWS - old.count("events")))

    policy = policy_on(old, pace=SLOWLY)
    result = run(policy, listening(around, hear), walker="heap")

    assert result.stop_reason is StopReason.EXHAUSTED
    assert (result.total, result.left_behind) == (26_999, 1)
    assert set(told) == {0}


@pytest.mark.parametrize("walker", ["heap", "index"])
def test_nobody_waits_for_more_wal_than_a_slice_writes(
    old: Database, around: Surroundings, walker: str
) -> None:
    old.run(_NOTE_SLICES)

    result = run(policy_on(old, pace=SLOWLY), around, walker=walker)

    slices = _slices(old)
    assert result.total == sum(slices) == 27_000
    assert len(slices) > 4 * result.batches
    assert max(slices) < 27_000 / 3  # on a busy machine slices grow, to 48 pages


def test_slices_shorter_than_the_server_can_sleep_rest_no_more_than_was_asked_for(
    old: Database, around: Surroundings
) -> None:
    """It sleeps for whole milliseconds, and a slice of 0.6 ms earns 0.03 at a duty of 0.95."""
    result = run(policy_on(old, pace=replace(SLOWLY, duty=0.95)), around, walker="index")

    worked = result.phases.delete + result.phases.commit
    assert result.total == 27_000
    assert 0 < result.phases.wait < worked  # 1.3 to 2 times as long where each slice rested


def test_pages_of_a_slice_are_read_by_its_own_process(old: Database, around: Surroundings) -> None:
    """From PostgreSQL 18 on others would read them, and each slice would wait for those."""
    old.run(
        "CREATE TABLE readers (concurrency text);"
        "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN"
        " INSERT INTO readers VALUES (current_setting(''effective_io_concurrency'')); RETURN NULL; END';"
        "CREATE TRIGGER tell AFTER DELETE ON events EXECUTE FUNCTION tell()"
    )
    usual = old.column("SHOW effective_io_concurrency")

    run(policy_on(old, pace=SLOWLY), around, walker="heap")

    assert set(old.column("SELECT concurrency FROM readers")) == (
        {"0"} if old.version >= 18 else set(usual)
    )


def test_slices_grow_where_little_has_expired_and_shrink_where_much_has(
    events: Database, around: Surroundings
) -> None:
    events.run(
        "INSERT INTO events SELECT i, now() - CASE WHEN i > 150000 THEN interval '60 days'"
        " ELSE interval '1 day' END, 'a', repeat('n', 50) FROM generate_series(1, 200000) i;"
        "ANALYZE events"
    )
    events.run(_NOTE_SLICES)
    pace = replace(SLOWLY, first_window_rows=200_000, batch_target=timedelta(seconds=10))

    result = run(policy_on(events, pace=pace), around, walker="heap")

    slices = _slices(events)
    empty, full = slices.count(0), [rows for rows in slices if rows]
    assert (result.total, result.batches) == (50_000, 1)
    assert empty < 2_000 / 12 / 8  # of the 2,000 pages without an expired row
    assert len(full) > 5
    assert max(full) < 256 * 100
    assert max(full[-5:]) < 8_000


_NOTE_SLICES = """
    CREATE TABLE slices (number serial, rows bigint);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO slices (rows) SELECT count(*) FROM gone; RETURN NULL; END';
    CREATE TRIGGER note AFTER DELETE ON events REFERENCING OLD TABLE AS gone
        FOR EACH STATEMENT EXECUTE FUNCTION note()
"""


def _slices(database: Database) -> list[int]:
    return database.column("SELECT rows FROM slices ORDER BY number")


def test_who_waits_for_a_window_at_rest_is_let_through(old: Database, around: Surroundings) -> None:
    pace = replace(
        SLOWLY,
        duty=0.005,
        batch_target=timedelta(seconds=60),
        time_budget=timedelta(seconds=1),
        health=HealthLimits(yield_after=timedelta(milliseconds=300)),
    )
    heard: list[Event] = []

    with running(policy_on(old, pace=pace), listening(around, heard.append), walker="heap") as ours:
        wait_until(lambda: _at_rest(old) or ours.done(), 10)
        begun = time.monotonic()
        with old.session() as user, user.cursor() as cursor:
            cursor.execute("UPDATE events SET note = 'mine' WHERE id = 1")
            waited = time.monotonic() - begun
            user.commit()
        result = ours.result(60)

    assert waited < 3  # the window would have lasted for a minute
    assert any(
        event.cause.startswith("yielded to session ")
        for event in heard
        if isinstance(event, WindowShrunk)
    )
    assert result.total == ledger_rows(old) == ROWS - old.count("events")


def test_a_hold_is_placed_while_a_window_rests_and_holds_at_once(
    old: Database, around: Surroundings
) -> None:
    health = HealthLimits(yield_after=timedelta(milliseconds=300))
    long = {"batch_target": timedelta(seconds=60), "time_budget": timedelta(seconds=1)}
    pace = replace(SLOWLY, duty=0.005, health=health, **long)

    with running(policy_on(old, pace=pace), around, walker="heap") as ours:
        wait_until(lambda: _at_rest(old) or ours.done(), 10)
        begun = time.monotonic()
        place(old, "id < 100")
        waited = time.monotonic() - begun
        there = old.one("SELECT count(*) FROM events WHERE id < 100")
        result = ours.result(60)

    assert waited < 3  # the window would have lasted for a minute
    assert there == old.one("SELECT count(*) FROM events WHERE id < 100") == 99
    assert result.total == ledger_rows(old) == ROWS - old.count("events")


def _at_rest(database: Database) -> bool:
    return bool(
        database.one(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'hk:tables%%'"
            " AND query LIKE '%%housekeeping.purge.delete%%' AND wait_event = 'PgSleep'"
        )
    )


@pytest.mark.parametrize("walker", ["heap", "index"])
def test_a_policys_own_words_arrive_in_a_slice_as_they_were_written(
    old: Database, around: Surroundings, walker: str
) -> None:
    old.run(
        r"""ALTER TABLE events ADD lower_end text DEFAULT 'it''s 100% \ $1 $hk$', ADD count int"""
    )
    where = r"""lower_end LIKE '%it''s 100\% %' AND count IS NULL AND note <> '$2' AND 5 % 2 = 1
        AND length('%%') = 2 AND length(E'\\%s') = 3 AND '{braces} %s' <> ''"""

    result = run(policy_on(old, where=where, pace=SLOWLY), around, walker=walker)

    assert (result.success, result.total) == (True, 27_000)


def test_without_the_right_to_run_a_block_windows_are_taken_at_once(
    old: Database, around: Surroundings
) -> None:
    old.run("REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC; DROP ROLE IF EXISTS modest")
    name = old.one("SELECT current_database()")
    old.run(
        f"CREATE ROLE modest LOGIN; GRANT CREATE ON DATABASE {name} TO modest;"
        "GRANT SELECT, UPDATE, DELETE ON events TO modest"
    )
    modest = Database(old.url.replace("postgres@", "modest@"), old.version)
    try:
        result = run(policy_on(modest, pace=SLOWLY), around, walker="heap")
    finally:
        old.run("DROP OWNED BY modest; DROP ROLE modest")

    assert (result.success, result.total) == (True, 27_000)
