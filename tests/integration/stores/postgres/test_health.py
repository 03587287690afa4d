"""Every health signal sees its real cause."""

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection

from embedded.installations import installations
from embedded.postgresql import PostgresServer
from housekeeping.engine.health import Judge
from housekeeping.policies.health import HealthLimits, Reading, Verdict
from housekeeping.stores.postgres.connection import connected
from housekeeping.stores.postgres.health.sampling import Sampler, signals_for
from tests.conditions import wait_until
from tests.integration.database import Database

MB = 1024 * 1024
GO, SLOW, STOP = Verdict.GO, Verdict.SLOW, Verdict.STOP


@pytest.fixture
def ours(database: Database) -> Iterator[Connection]:
    with connected(database.url, "hk:test") as connection:
        yield connection


def readings(
    connection: Connection, limits: HealthLimits, tables: frozenset[int] = frozenset()
) -> dict[str, Reading]:
    """Measure once and judge."""
    signals = signals_for(limits, tables)
    sample = Sampler(connection, signals).measure()
    return {reading.signal: reading for reading in Judge(signals).judge(sample)}


def test_a_healthy_plain_server_lets_us_go(ours: Connection) -> None:
    told = readings(ours, HealthLimits())

    assert {signal for signal, reading in told.items() if reading.verdict is GO} == set(told)


def test_measuring_leaves_no_transaction_and_no_setting_behind(ours: Connection) -> None:
    readings(ours, HealthLimits(sql="SELECT 1 / 0"))

    assert not ours.in_transaction()
    assert ours.exec_driver_sql("SHOW statement_timeout").scalar_one() == "0"


def test_a_measurement_can_not_write(ours: Connection, database: Database) -> None:
    database.run(
        "CREATE TABLE notes (id int);"
        "CREATE FUNCTION note() RETURNS int LANGUAGE sql AS 'INSERT INTO notes VALUES (1) RETURNING 1'"
    )

    reading = readings(ours, HealthLimits(sql="SELECT note()"))["sql"]

    assert reading.verdict is STOP
    assert "read-only transaction" in reading.reason


def test_sessions_that_wait_for_a_lock_are_counted_after_a_second(
    ours: Connection, database: Database
) -> None:
    database.run("CREATE TABLE counters (id int PRIMARY KEY); INSERT INTO counters VALUES (1)")
    limits = HealthLimits(max_lock_waiters=1)
    with ExitStack() as closing, ThreadPoolExecutor(3) as threads:
        holder = closing.enter_context(database.session())
        holder.cursor().execute("UPDATE counters SET id = 2")
        with database.session() as advisory:
            advisory.cursor().execute("SELECT pg_advisory_lock(1)")
            threads.submit(database.run, "SELECT pg_advisory_lock(1)")  # means to wait
            for _ in range(2):
                threads.submit(database.run, "UPDATE counters SET id = 3")
            begun = time.monotonic()
            wait_until(
                lambda: database.one("SELECT count(*) FROM pg_locks WHERE NOT granted") > 2, 5
            )
            if time.monotonic() - begun < 0.5:
                assert readings(ours, limits)["lock_waiters"].verdict is GO
            reading = wait_until(lambda: _stopped(ours, limits, "lock_waiters"), 10)
            holder.rollback()

    assert reading.reason == "2 sessions have waited for a lock for over a second"
    assert readings(ours, limits)["lock_waiters"].verdict is GO


def _stopped(connection: Connection, limits: HealthLimits, signal: str) -> Reading | None:
    reading = readings(connection, limits)[signal]
    return reading if reading.verdict is STOP else None


@contextmanager
def slow_vacuum(database: Database, table: str) -> Iterator[None]:
    """Vacuum a table, as slowly as the server can, for a block."""
    with ThreadPoolExecutor(1) as threads, database.session() as session:
        session.autocommit = True
        with session.cursor() as cursor:
            cursor.execute("SET vacuum_cost_delay = 100; SET vacuum_cost_limit = 1")
            done = threads.submit(cursor.execute, f"VACUUM {table}")
            wait_until(lambda: database.count("pg_stat_progress_vacuum") or done.done(), 10)
            assert not done.done(), done.result()
            yield
            database.run("SELECT pg_cancel_backend(pid) FROM pg_stat_progress_vacuum")


def test_a_vacuum_on_our_table_is_seen_and_one_on_another_is_not(
    ours: Connection, database: Database
) -> None:
    database.run(
        "CREATE TABLE events AS SELECT i, repeat('x', 500) FROM generate_series(1, 5000) i;"
        "DELETE FROM events WHERE i % 2 = 0"
    )
    oid = int(database.one("SELECT 'events'::regclass::oid"))
    pausing = HealthLimits(pause_during_autovacuum=True)

    assert readings(ours, pausing, frozenset({oid}))["autovacuum"].verdict is GO
    with slow_vacuum(database, "events"):
        slowed = readings(ours, HealthLimits(), frozenset({oid}))["autovacuum"]
        assert readings(ours, pausing, frozenset({oid}))["autovacuum"].verdict is STOP
        assert readings(ours, pausing, frozenset({oid + 1}))["autovacuum"].verdict is GO

    assert slowed.verdict is SLOW
    assert re.fullmatch(r"process \d+ vacuums the table \(.+\)", slowed.reason)


def test_without_pg_monitor_a_vacuum_slows_and_the_reason_says_what_to_grant(
    database: Database,
) -> None:
    database.run(
        "CREATE TABLE events AS SELECT i, repeat('x', 500) FROM generate_series(1, 5000) i;"
        "DELETE FROM events WHERE i % 2 = 0;"
        "DROP ROLE IF EXISTS blind; CREATE ROLE blind LOGIN"
    )
    try:
        blind = database.url.replace("postgres@", "blind@")
        with slow_vacuum(database, "events"), connected(blind, "hk:test") as connection:
            reading = readings(
                connection, HealthLimits(pause_during_autovacuum=True), frozenset({1})
            )
    finally:
        database.run("DROP ROLE blind")

    assert reading["autovacuum"].verdict is SLOW
    assert reading["autovacuum"].reason.endswith("run: GRANT pg_monitor TO blind")
    others = {signal: r.verdict for signal, r in reading.items() if signal != "autovacuum"}
    assert set(others.values()) == {GO}


def test_a_users_own_query_is_asked(ours: Connection, database: Database) -> None:
    database.run("CREATE TABLE sales (name text)")
    limits = HealthLimits(sql="SELECT count(*) FROM sales WHERE name LIKE '%sale' -- of today")

    assert readings(ours, limits)["sql"].verdict is GO
    database.run("INSERT INTO sales VALUES ('summer sale')")
    assert readings(ours, limits)["sql"].verdict is STOP


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("SELECT 1 / 0", "division by zero"),
        ("SELECT nothing FROM nowhere;", 'relation "nowhere" does not exist'),
        ("SELECT 1; SELECT 2", "syntax error"),
        ("SELECT 1, 2", "one column"),
        ("SELECT generate_series(1, 2)", "more than one row"),
        ("SELECT pg_sleep(60)", "statement timeout"),
    ],
)
def test_a_query_that_fails_stops_us_and_costs_no_other_signal(
    ours: Connection, query: str, told: str
) -> None:
    found = readings(ours, HealthLimits(sql=query))
    failed = found.pop("sql")

    assert failed.verdict is STOP
    assert told in failed.reason
    assert {reading.verdict for reading in found.values()} == {GO}


def test_the_wal_rate_is_measured_between_two_samples(ours: Connection, database: Database) -> None:
    signals = signals_for(HealthLimits(max_wal_rate=MB))
    sampler, judge = Sampler(ours, signals), Judge(signals)

    def verdict() -> Verdict:
        return {r.signal: r.verdict for r in judge.judge(sampler.measure())}["wal_rate"]

    assert verdict() is GO
    # Far more than a megabyte a second, however long this machine takes for it.
    database.run("SELECT pg_logical_emit_message(true, 't', repeat('x', 64 * 1024 * 1024))")
    assert verdict() is STOP
    wait_until(lambda: verdict() is GO, 10)


@pytest.mark.parametrize(("free", "verdict"), [(11 * MB, GO), (9 * MB, STOP)])
def test_free_disk_space_is_told_by_a_query(ours: Connection, free: int, verdict: Verdict) -> None:
    limits = HealthLimits(min_free_disk=10 * MB, free_disk_sql=f"SELECT {free}::bigint")

    assert readings(ours, limits)["disk_headroom"].verdict is verdict


@pytest.mark.parametrize(("least", "verdict"), [(1, GO), (2**60, STOP)])
def test_free_disk_space_is_looked_up_where_the_server_is_here(
    postgres: PostgresServer, database: Database, least: int, verdict: Verdict
) -> None:
    name = database.url.rpartition("/")[2]
    local = f"postgresql://postgres@/{name}?host={postgres.socket_directory}&port={postgres.port}"
    with connected(local, "hk:test") as connection:
        reading = readings(connection, HealthLimits(min_free_disk=least))["disk_headroom"]

    assert reading.verdict is verdict
    assert "of disk are free" in reading.reason


def test_free_disk_space_of_a_server_elsewhere_is_not_guessed(ours: Connection) -> None:
    reading = readings(ours, HealthLimits(min_free_disk=1))["disk_headroom"]

    assert reading.verdict is SLOW
    assert "give free_disk_sql" in reading.reason


def test_samplers_share_only_what_both_of_them_measure(database: Database) -> None:
    def identity(url: str = database.url, **limits: Any) -> str:
        with connected(url, "hk:test") as connection:
            return Sampler(connection, signals_for(HealthLimits(**limits))).identity()

    assert identity() == identity(max_lock_waiters=1)
    others = {identity(sql="SELECT 1"), identity(sql="SELECT 2"), identity(max_wal_rate=MB)}
    assert len({identity(), *others}) == 4


@pytest.fixture(scope="module", params=installations(), ids=lambda each: each.name)
def archiving(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A database whose server archives to nowhere."""
    settings = {"archive_mode": "on", "archive_command": "false"}
    with PostgresServer(request.param, settings) as server:
        yield Database(server.url(), request.param.version)


def test_segments_that_can_not_be_archived_slow_and_then_stop(archiving: Database) -> None:
    limits = HealthLimits(max_archive_backlog=3)

    def reading() -> Reading:
        with connected(archiving.url, "hk:test") as connection:
            return readings(connection, limits)["archive_backlog"]

    def switch() -> None:
        archiving.run("SELECT pg_logical_emit_message(true, 't', 'x'); SELECT pg_switch_wal()")

    assert reading().verdict is GO
    switch()
    wait_until(lambda: reading().verdict is SLOW, 20, lambda: str(reading()))
    assert re.fullmatch(
        r"1 WAL segments wait for the archive; archiving [0-9A-F]{24} fails", reading().reason
    )
    for _ in range(3):
        switch()
    assert reading().verdict is STOP

    archiving.run("ALTER SYSTEM SET archive_command = 'true'")
    archiving.run("SELECT pg_reload_conf()")
    switch()
    wait_until(lambda: reading().verdict is GO, 90, lambda: str(reading()))


def test_a_slot_that_loses_its_wal_stops_us(database: Database, ours: Connection) -> None:
    name = f"slot_{database.url.rpartition('/')[2]}"
    limits = replace(HealthLimits(), max_replication_bytes=MB)
    database.run("SELECT pg_create_physical_replication_slot(%s, true)", name)
    try:
        database.run("SELECT pg_logical_emit_message(true, 't', repeat('x', 2 * 1024 * 1024))")
        away = readings(ours, limits)["replication_slots"]
        assert (away.verdict, "has no reader" in away.reason) == (SLOW, True)
        database.run("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
        database.run("SELECT pg_reload_conf()")
        limits = replace(limits, max_replication_bytes=100 * MB)  # the server counts in segments
        soon = wait_until(lambda: _stopped(ours, limits, "replication_slots"), 10)
        assert f"replication slot {name} is lost after" in soon.reason
        ignoring = replace(limits, ignored_standbys=(name,))
        assert readings(ours, ignoring)["replication_slots"].verdict is GO
    finally:
        database.run("ALTER SYSTEM RESET max_slot_wal_keep_size")
        database.run("SELECT pg_reload_conf()")
        database.run("SELECT pg_drop_replication_slot(%s)", name)
