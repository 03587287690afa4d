"""Archiving: every row in one place or the other, whole, in the table of its month."""

from datetime import UTC, datetime
from typing import Any

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.policies.archive import ArchiveIndex
from housekeeping.policies.purge import Age
from housekeeping.policies.result import RunResult, StopReason
from housekeeping.stores.postgres.archive_indexes import index_name
from housekeeping.stores.postgres.emptying import CHILD_ROWS
from tests.integration.archives import EVERY_TYPE, archived, archiving, fill, to
from tests.integration.database import Database
from tests.integration.runs import SMALL_WINDOWS, per_status, run, running

IMAGES = "SELECT id, md5(row_to_json(t)::text) FROM (SELECT {columns} FROM {table}) t ORDER BY id"


@pytest.mark.parametrize("walker", ["heap", "index"])
def test_every_common_type_arrives_byte_for_byte(
    database: Database, around: Surroundings, walker: str
) -> None:
    database.run(EVERY_TYPE)
    database.run("CREATE INDEX ON everything (created_at); ANALYZE everything")
    columns = ", ".join(
        f'"{name}"'.replace('Odd "name%', 'Odd ""name%%')
        for name in database.column(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'everything'::regclass AND attnum > 0"
        )
    )
    images = dict(
        database.rows(IMAGES.format(columns=columns, table="everything").replace("%%", "%"))
    )
    raw = dict(database.rows("SELECT id, textsend(everything::text) FROM everything"))

    policy = archiving(database, "everything", archive=to("kept"), pace=SMALL_WINDOWS)
    result = run(policy, around, walker=walker)

    assert result.success, result
    moved: dict[int, str] = {}
    texts: dict[int, bytes] = {}
    for name in archived(database):
        query = IMAGES.format(columns=columns, table=name).replace("%%", "%")
        found = dict(database.rows(query))
        assert not set(found) & set(moved)
        moved |= found
        texts |= dict(
            database.rows(
                f"SELECT id, textsend(ROW({columns})::text) FROM {name}".replace("%%", "%")
            )
        )
    left = dict(
        database.rows(IMAGES.format(columns=columns, table="everything").replace("%%", "%"))
    )
    assert not set(left) & set(moved)
    assert left | moved == images
    assert all(texts[number].tobytes() == raw[number].tobytes() for number in moved)
    assert result.total == len(moved) == 2_002 - len(left)
    assert archived(database)["kept_undated"] == 1
    assert database.one("SELECT now() - archived_at < interval '1 h' FROM kept_undated")


def test_rows_go_to_the_month_of_their_age_in_utc(events: Database, around: Surroundings) -> None:
    events.run(
        "INSERT INTO events VALUES (1, '2024-01-31 23:59:59.999999+00'), (2, '2024-02-01 00:00:00+00'),"
        " (3, '2024-02-01 00:30:00+01'), (4, '2023-12-31 23:00:00-02'), (5, '2024-02-29 12:00:00+00')"
    )
    result = run(archiving(events), around)
    assert result.success
    assert archived(events) == {"events_archive_2024_01": 3, "events_archive_2024_02": 2}
    assert events.column("SELECT id FROM events_archive_2024_01 ORDER BY 1") == [1, 3, 4]
    assert result.tables == (
        {"table": "public.events_archive_2024_01", "done": "archived", "rows": 3},
        {"table": "public.events_archive_2024_02", "done": "archived", "rows": 2},
    )


@pytest.mark.parametrize(
    ("type_", "unit", "zone", "value", "month"),
    [
        ("timestamp", None, "UTC", "'2024-02-01 00:00'", "2024_02"),
        ("timestamp", None, "Europe/Berlin", "'2024-02-01 00:30'", "2024_01"),
        ("timestamp", None, "America/New_York", "'2024-01-31 20:00'", "2024_02"),
        ("date", None, "UTC", "'2024-01-31'", "2024_01"),
        ("bigint", "ms", "UTC", "1706745600000", "2024_02"),
        ("bigint", "ms", "UTC", "1706745599999", "2024_01"),
        ("integer", "s", "UTC", "0", "1970_01"),
        ("timestamptz", None, "UTC", "'0044-03-15 BC'", "undated"),
    ],
)
def test_a_month_is_told_by_every_type_of_age(
    database: Database,
    around: Surroundings,
    type_: str,
    unit: Any,
    zone: str,
    value: str,
    month: str,
) -> None:
    database.run(f"CREATE TABLE events (id int PRIMARY KEY, at {type_})")
    database.run(f"INSERT INTO events VALUES (1, {value})")
    result = run(archiving(database, age=Age(columns=("at",), unit=unit, time_zone=zone)), around)
    assert (result.total, result.success) == (1, True)
    assert archived(database) == {f"events_archive_{month}": 1}


def test_the_runs_own_month_may_name_the_table(events: Database, around: Surroundings) -> None:
    fill(events)
    before = datetime.now(UTC)
    result = run(archiving(events, archive=to(month_of="run")), around)
    assert result.success
    months = {f"events_archive_{at:%Y_%m}" for at in (before, datetime.now(UTC))}
    assert set(archived(events)) <= months


def test_a_heap_in_no_order_fills_all_its_months(events: Database, around: Surroundings) -> None:
    events.run(
        "INSERT INTO events SELECT i, now() - (i * 7919 %% 20000) * interval '1 hour', 'a'"
        " FROM generate_series(1, %s) i",
        20_000,
    )
    events.run("ANALYZE events")
    result = run(archiving(events, pace=SMALL_WINDOWS), around, walker="heap")
    assert result.success
    assert sum(archived(events).values()) == result.total == 20_000 - events.count("events")
    assert len(archived(events)) >= 27


@pytest.mark.parametrize("walker", ["heap", "index"])
@pytest.mark.parametrize("lines", [0, 30])
def test_rows_are_counted_by_rule_and_by_month_alone_and_with_children(
    events: Database, around: Surroundings, lines: int, walker: str
) -> None:
    if lines:
        events.run(
            "CREATE TABLE lines (event bigint REFERENCES events ON DELETE CASCADE);"
            "CREATE INDEX ON lines (event)"
        )
    events.run(
        "INSERT INTO events SELECT i, timestamptz '2024-01-10' + (i % 3) * interval '31 days',"
        " (ARRAY['done','failed'])[1 + (i / 3) % 2] FROM generate_series(0, 599) i; ANALYZE events"
    )
    if lines:
        events.run("INSERT INTO lines SELECT id FROM events WHERE id < %s", lines)
    result = run(archiving(events, rules=per_status(done=30, failed=30)), around, walker=walker)
    assert result.details == {"done": 300, "failed": 300} | ({"lines": lines} if lines else {})
    assert archived(events) == {
        f"events_archive_2024_{month}{of}": rows
        for month in ("01", "02", "03")
        for of, rows in (("", 200), ("_lines", lines // 3))
        if rows
    }


def test_children_go_to_tables_of_their_own_in_their_parents_month(
    events: Database, around: Surroundings
) -> None:
    events.run(
        "CREATE TABLE lines (id int PRIMARY KEY, event bigint REFERENCES events ON DELETE CASCADE,"
        " written timestamptz DEFAULT now()); CREATE INDEX ON lines (event)"
    )
    events.run("INSERT INTO events VALUES (1, '2024-01-10'), (2, '2024-02-10'), (3, now())")
    events.run("INSERT INTO lines SELECT i, 1 + i %% 3 FROM generate_series(1, %s) i", 300)
    policy = archiving(
        events, archive=to(suffixes=(("lines", "l"),)), child_names=(("lines", "lines"),)
    )
    result = run(policy, around)
    assert result.details == {"expired": 2, "lines": 200}
    assert archived(events) == {
        "events_archive_2024_01": 1,
        "events_archive_2024_01_l": 100,
        "events_archive_2024_02": 1,
        "events_archive_2024_02_l": 100,
    }
    assert events.column("SELECT DISTINCT event FROM events_archive_2024_02_l") == [2]
    assert events.count("lines") == 100


def test_a_row_with_more_children_than_a_transaction_takes_arrives_with_all_of_them(
    events: Database, around: Surroundings
) -> None:
    events.run(
        "CREATE TABLE lines (event bigint REFERENCES events ON DELETE CASCADE, note text);"
        "CREATE INDEX ON lines (event)"
    )
    events.run("INSERT INTO events VALUES (1, '2024-01-10')")
    events.run("INSERT INTO lines SELECT 1, i FROM generate_series(1, %s) i", 2 * CHILD_ROWS + 7)
    result = run(archiving(events), around)
    assert result.details == {"expired": 1, "lines": 2 * CHILD_ROWS + 7}
    assert archived(events) == {
        "events_archive_2024_01": 1,
        "events_archive_2024_01_lines": 2 * CHILD_ROWS + 7,
    }
    notes = events.one("SELECT count(DISTINCT note) FROM events_archive_2024_01_lines")
    assert notes == 2 * CHILD_ROWS + 7


def test_a_child_that_refers_by_two_keys_is_archived_once(
    events: Database, around: Surroundings
) -> None:
    events.run(
        "CREATE TABLE pairs (a bigint REFERENCES events ON DELETE CASCADE,"
        " b bigint REFERENCES events ON DELETE CASCADE);"
        "CREATE INDEX ON pairs (a); CREATE INDEX ON pairs (b)"
    )
    events.run("INSERT INTO events VALUES (1, '2024-01-10'), (2, '2024-02-10'), (3, now())")
    events.run("INSERT INTO pairs VALUES (1, 2), (1, 3), (3, 2), (3, 3)")
    assert run(archiving(events), around).success
    pairs = [events.count(name) for name in archived(events) if name.endswith("_pairs")]
    assert (sum(pairs), events.count("pairs")) == (3, 1)


def test_rows_without_a_key_are_archived_too(database: Database, around: Surroundings) -> None:
    database.run("CREATE TABLE events (created_at timestamptz, note text)")
    database.run("INSERT INTO events SELECT '2024-01-10', 'same' FROM generate_series(1, 50)")
    assert run(archiving(database), around).total == 50
    assert archived(database) == {"events_archive_2024_01": 50}


def test_a_limit_and_a_second_run_move_each_row_once(
    events: Database, around: Surroundings
) -> None:
    fill(events)
    first = run(archiving(events), around, limit=123)
    assert (first.total, first.stop_reason) == (123, StopReason.ROW_BUDGET)
    second = run(archiving(events), around)
    assert (
        sum(archived(events).values())
        == first.total + second.total
        == 5_000 - events.count("events")
    )


def test_a_row_somebody_is_changing_stays_whole_where_it_is(
    events: Database, around: Surroundings
) -> None:
    fill(events)
    with events.session() as session, session.cursor() as cursor:
        cursor.execute("UPDATE events SET created_at = now(), note = 'retried' WHERE id = 4000")
        with running(archiving(events), around) as result:
            assert result.result(60).left_behind == 1
        session.commit()
    assert events.one("SELECT note FROM events WHERE id = 4000") == "retried"
    kept = events.count("events")
    assert run(archiving(events), around).total == 0
    assert sum(archived(events).values()) == 5_000 - kept


def test_indexes_are_built_once_the_run_has_moved_all(
    events: Database, around: Surroundings
) -> None:
    fill(events)
    policy = archiving(events, archive=to(indexes=(ArchiveIndex(columns=("status", "id")),)))
    run(policy, around, limit=100)
    built = "SELECT count(*) FROM pg_indexes WHERE indexname LIKE 'IX_events_archive%%status_id'"
    assert events.one(built.replace("%%", "%")) == 0
    assert run(policy, around).success
    assert events.one(built.replace("%%", "%")) == len(archived(events))
    assert run(policy, around).warnings == ()


def test_long_index_names_stay_apart() -> None:
    names = {index_name("t" * 60, (column,)) for column in ("a_long_column", "another_long_column")}
    assert len(names) == 2
    assert all(len(name) <= 63 for name in names)


def test_a_dry_run_says_what_would_move_and_makes_no_table(
    events: Database, around: Surroundings
) -> None:
    fill(events)
    told = run(archiving(events), around, dry_run=True)
    assert told.plan is not None
    assert events.one("SELECT to_regclass('events_archive_2026_01')") is None
    assert events.column("SELECT 1 FROM pg_namespace WHERE nspname = 'housekeeping'") == []
    assert told.plan["would_archive"] == run(archiving(events), around).total


def test_a_dropped_month_is_made_again_for_late_rows(
    events: Database, around: Surroundings
) -> None:
    events.run("INSERT INTO events VALUES (1, '2024-01-10')")
    run(archiving(events), around)
    events.run("DROP TABLE events_archive_2024_01")
    events.run("UPDATE housekeeping.archive_table SET dropped_at = now()")
    events.run("INSERT INTO events VALUES (2, '2024-01-11')")
    assert run(archiving(events), around).success
    assert archived(events) == {"events_archive_2024_01": 1}
    assert events.one("SELECT dropped_at FROM housekeeping.archive_table") is None


def result_of(result: RunResult) -> tuple[int, bool]:
    return result.total, result.success


def test_a_month_older_than_the_rest_is_found_whatever_the_window(
    events: Database, around: Surroundings
) -> None:
    fill(events, 3_000, "1 hour")
    events.run(
        "UPDATE events SET created_at = '1999-12-31 23:59:59+00' WHERE id IN (1, 1500, 3000)"
    )
    result = run(archiving(events, pace=SMALL_WINDOWS), around, walker="heap")
    assert result_of(result) == (3_000 - events.count("events"), True)
    assert archived(events)["events_archive_1999_12"] == 3


def test_an_age_made_by_an_expression_is_routed_by_it(
    events: Database, around: Surroundings
) -> None:
    events.run("INSERT INTO events VALUES (1, NULL, '2024-03-05'), (2, '2024-01-10', NULL)")
    age = Age(expression="coalesce(events.created_at, status::timestamptz)")
    result = run(archiving(events, age=age), around)
    assert result_of(result) == (2, True)
    assert archived(events) == {"events_archive_2024_01": 1, "events_archive_2024_03": 1}
