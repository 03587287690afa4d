"""Windows in slices on servers that are set up in other ways than ours."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import psycopg2
import pytest

from embedded.postgresql import PostgresServer
from housekeeping.engine.run import Surroundings
from housekeeping.policies.pace import Pace
from housekeeping.policies.purge import Age
from tests.integration.archives import archived, archiving
from tests.integration.database import Database
from tests.integration.runs import BRISK, SMALL_WINDOWS, ledger_rows, per_status, policy_on, run

RESTING = replace(SMALL_WINDOWS, duty=0.5)
ONE_WINDOW = replace(BRISK, duty=0.5, first_window_rows=20_000, batch_target=timedelta(seconds=1))
BOTH_WALKERS = pytest.mark.parametrize("walker", ["heap", "index"])
ROWS, EXPIRED = 10_000, 9_000
FILL = f"""
INSERT INTO events SELECT i, now() - CASE WHEN i % 10 > 0 THEN interval '60 days'
 ELSE interval '1 day' END - i * interval '1 second', (ARRAY['a', 'b'])[1 + i % 2], repeat('n', 50)
FROM generate_series(1, {ROWS}) i;
ANALYZE events
"""
TABLE = (
    "CREATE TABLE events (id bigint PRIMARY KEY, created_at timestamptz, status text, note text);"
)
INDEXED = "CREATE INDEX ON events (created_at);"


@pytest.fixture
def old(events: Database) -> Database:
    """Rows of two kinds, all but every tenth of them expired."""
    events.run(FILL)
    return events


@pytest.fixture
def counted(postgres: PostgresServer) -> Iterator[Database]:
    """A database whose server keeps statistics of statements."""
    with closing(psycopg2.connect(postgres.url())) as session, session.cursor() as cursor:
        cursor.execute("SELECT FROM pg_available_extensions WHERE name = 'pg_stat_statements'")
        if cursor.fetchone() is None:
            pytest.skip(f"{postgres.installation.name} comes without pg_stat_statements")
    library = {"shared_preload_libraries": "pg_stat_statements"}
    with PostgresServer(postgres.installation, library) as server:
        database = Database(server.create_database("counted"), postgres.installation.version)
        database.run(TABLE + INDEXED + "CREATE EXTENSION pg_stat_statements")
        database.run(FILL)
        yield database


@BOTH_WALKERS
def test_a_runs_windows_are_one_statement_in_the_servers_statistics(
    counted: Database, around: Surroundings, walker: str
) -> None:
    """pg_stat_statements keeps 5,000 by default: a text for each window would drive the users' out."""
    result = run(policy_on(counted, pace=RESTING), around, walker=walker)

    assert (result.success, result.total) == (True, EXPIRED)
    assert result.batches > 5
    known = "SELECT calls FROM pg_stat_statements WHERE query LIKE '%housekeeping.purge.delete%'"
    assert counted.column(known) == [result.batches]


SETTINGS = [
    "standard_conforming_strings = off",
    "DateStyle = 'German, DMY'",
    "TimeZone = 'Asia/Kathmandu'",
    "IntervalStyle = 'sql_standard'",
    "extra_float_digits = -15",
    "plan_cache_mode = 'force_generic_plan'",
    "plpgsql.extra_errors = 'all'",
    "plpgsql.variable_conflict = 'use_variable'",
    "search_path = public, pg_catalog",
    "default_transaction_isolation = 'serializable'",
]


@BOTH_WALKERS
def test_the_databases_own_settings_change_nothing(
    old: Database, around: Surroundings, walker: str
) -> None:
    name = old.one("SELECT current_database()")
    for setting in SETTINGS:
        old.run(f"ALTER DATABASE {name} SET {setting}")
    where = r"""note <> 'a\b' AND note <> E'it''s $2 %' AND length(E'\\_') = 2"""

    rules = per_status(a=30, b=30)
    result = run(policy_on(old, where=where, rules=rules, pace=ONE_WINDOW), around, walker=walker)

    assert (result.success, result.total) == (True, EXPIRED), result
    assert dict(result.details) == {"a": 4_000, "b": 5_000}
    assert ROWS - old.count("events") == ledger_rows(old) == EXPIRED


@BOTH_WALKERS
def test_casts_and_operators_of_the_users_own_change_nothing(
    old: Database, around: Surroundings, walker: str
) -> None:
    """Numbers that are texts wherever one is asked for, as before PostgreSQL 8.3."""
    old.run(
        "CREATE CAST (integer AS text) WITH INOUT AS IMPLICIT;"
        "CREATE CAST (bigint AS text) WITH INOUT AS IMPLICIT;"
        "CREATE CAST (text AS json) WITH INOUT AS IMPLICIT;"
        "CREATE CAST (text AS jsonb) WITH INOUT AS IMPLICIT"
    )

    result = run(policy_on(old, pace=ONE_WINDOW), around, walker=walker)

    assert (result.success, result.total) == (True, EXPIRED), result


@BOTH_WALKERS
def test_without_the_right_to_sleep_windows_are_taken_at_once(
    old: Database, around: Surroundings, walker: str
) -> None:
    """It is often taken away, so that nobody finds out by time what a query says."""
    old.run("REVOKE EXECUTE ON FUNCTION pg_sleep(float8) FROM PUBLIC; DROP ROLE IF EXISTS waking")
    name = old.one("SELECT current_database()")
    old.run(
        f"CREATE ROLE waking LOGIN; GRANT CREATE ON DATABASE {name} TO waking;"
        "GRANT SELECT, UPDATE, DELETE ON events TO waking"
    )
    waking = Database(old.url.replace("postgres@", "waking@"), old.version)
    try:
        result = run(policy_on(waking, pace=ONE_WINDOW), around, walker=walker)
    finally:
        old.run("DROP OWNED BY waking; DROP ROLE waking")

    assert (result.success, result.total) == (True, EXPIRED)


@pytest.mark.parametrize(
    ("declared", "age", "value"),
    [
        ("date", Age(columns=("at",)), "(now() - i * interval '1 day')::date"),
        ("timestamp", Age(columns=("at",)), "now() - i * interval '1 day' - interval '1 minute'"),
        ("timestamptz", Age(columns=("at",)), "now() - i * interval '1 day' - interval '1 minute'"),
        ("bigint", Age(columns=("at",), unit="us"), "(extract(epoch FROM now())-i*86400-60)*1e6"),
        ("integer", Age(columns=("at",), unit="s"), "extract(epoch FROM now()) - i * 86400 - 60"),
    ],
)
@BOTH_WALKERS
def test_every_kind_of_age_ends_a_slice(
    database: Database, around: Surroundings, walker: str, declared: str, age: Age, value: str
) -> None:
    """Some of them before Christ, and some before everything."""
    database.run(f"CREATE TABLE events (id int, at {declared}); CREATE INDEX ON events (at)")
    database.run(f"INSERT INTO events SELECT i, {value} FROM generate_series(1, 5000) i")
    if age.unit is None:
        database.run(
            "INSERT INTO events SELECT 10000 + i, date '0044-03-15 BC' + i"
            " FROM generate_series(1, 1500) i;"
            "INSERT INTO events SELECT 20000, '-infinity'; INSERT INTO events SELECT 0, 'infinity'"
        )
    before = database.count("events")

    result = run(policy_on(database, age=age, pace=ONE_WINDOW), around, walker=walker)

    youngest_gone = 31 if declared == "date" else 30
    survivors = [*([0] if age.unit is None else []), *range(1, youngest_gone)]
    assert database.column("SELECT id FROM events ORDER BY id") == survivors
    assert result.total == before - len(survivors) == ledger_rows(database)


@BOTH_WALKERS
def test_rows_that_were_put_back_are_met_in_the_archive_by_a_late_slice(
    old: Database, around: Surroundings, walker: str
) -> None:
    old.run("CREATE TABLE copy AS TABLE events")
    assert run(archiving(old, pace=ONE_WINDOW), around, walker=walker).total == EXPIRED
    old.run(
        "INSERT INTO events SELECT id + 100000, created_at, status, note FROM copy WHERE id % 10 > 0;"
        "INSERT INTO events SELECT * FROM copy WHERE id IN (1, 7001)"
    )

    result = run(archiving(old, pace=ONE_WINDOW), around, walker=walker)

    assert (result.success, result.total) == (True, EXPIRED + 2), result
    assert sum(archived(old).values()) == 2 * EXPIRED


@pytest.mark.parametrize("walker", ["heap", "index"])
def test_a_latin_database_reads_a_policys_words_in_slices(
    postgres: PostgresServer, around: Surroundings, walker: str
) -> None:
    postgres.drop_database("latin")
    with closing(psycopg2.connect(postgres.url())) as session:
        session.autocommit = True
        with session.cursor() as cursor:
            cursor.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    latin = Database(postgres.url("latin"), postgres.installation.version)
    try:
        latin.run(TABLE + INDEXED + FILL)
        latin.run("UPDATE events SET note = 'Gr\u00fcn' WHERE id % 10 = 1")
        policy = policy_on(latin, where="note = 'Gr\u00fcn'", pace=ONE_WINDOW)
        result = run(policy, around, walker=walker)
    finally:
        postgres.drop_database("latin")

    assert (result.success, result.total) == (True, 1_000)


def test_windows_no_larger_than_a_slice_make_slices_smaller_again(
    events: Database, around: Surroundings
) -> None:
    """Slices grow where nothing has expired; where all has, a window of 200 pages is to be cut."""
    events.run(
        "INSERT INTO events SELECT i, now() - CASE WHEN i > 60000 THEN interval '60 days'"
        " ELSE interval '1 day' END, 'a', repeat('n', 50) FROM generate_series(1, 120000) i;"
        "ANALYZE events;"
        "CREATE TABLE slices (number serial, rows bigint);"
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN INSERT INTO slices (rows) SELECT count(*) FROM gone; RETURN NULL; END';"
        "CREATE TRIGGER note AFTER DELETE ON events REFERENCING OLD TABLE AS gone"
        " FOR EACH STATEMENT EXECUTE FUNCTION note();"
        "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM md5(repeat(OLD.note, 20)); RETURN OLD; END';"
        "CREATE TRIGGER dawdle BEFORE DELETE ON events FOR EACH ROW EXECUTE FUNCTION dawdle()"
    )
    # 200,000 rows a second are assumed until something has been measured.
    pace = Pace(duty=0.5, first_window_rows=20_000, batch_target=timedelta(milliseconds=100))

    result = run(policy_on(events, pace=pace), around, walker="heap")

    slices = events.column("SELECT rows FROM slices WHERE rows > 0 ORDER BY number")
    assert (result.success, result.total) == (True, 60_000)
    assert max(slices[3:]) < 10_000, slices
