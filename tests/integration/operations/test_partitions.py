"""Partitioned tables: whole partitions go without being read, all else goes row by row."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.operations.inspection import inspect_purge
from housekeeping.policies.purge import Age, ExpiryRule, PartitionCare, TableName
from housekeeping.policies.result import StopReason
from tasks.command_line.console import show_result
from tests.conditions import wait_until
from tests.integration.database import Database
from tests.integration.partitions import (
    BOUNDARY,
    EXPIRED,
    WHOLE,
    add_partitions,
    ages,
    attached,
    fill,
    partitioned,
    there,
)
from tests.integration.runs import MONTH, ledger_rows, policy_on, run

STAYING = [f"events_{k}" for k in range(4)]
ALL = [f"events_{k}" for k in range(10)]


def test_whole_partitions_are_detached_and_the_boundary_one_goes_by_rows(
    database: Database, around: Surroundings
) -> None:
    partitioned(database)
    fill(database)

    result = run(policy_on(database), around)

    assert ages(database) == list(range(30))
    assert attached(database) == STAYING
    assert there(database) == ALL  # detached ones are kept for their grace
    assert (result.success, result.stop_reason) == (True, StopReason.EXHAUSTED)
    assert result.details == {
        "expired": EXPIRED,
        "partitions_detached": len(WHOLE),
        "partitions_dropped": 0,
    }
    assert result.total == EXPIRED == ledger_rows(database)
    assert "estimates" in " ".join(result.warnings)
    told = [(each["table"], each["done"], each["rows"]) for each in result.tables]
    assert told[:6] == [(f"public.events_{k}", "detached", 10) for k in WHOLE]
    assert told[6:] == [("public.events_3", "deleted", 6)]
    assert all(each["bytes"] > 0 and each["drop_after"] for each in result.tables[:6])


def test_a_second_run_does_nothing_twice(database: Database, around: Surroundings) -> None:
    partitioned(database)
    fill(database)
    first = run(policy_on(database), around)

    second = run(policy_on(database), around)

    assert (second.total, second.success) == (0, True)
    assert second.details == {"expired": 0, "partitions_detached": 0, "partitions_dropped": 0}
    assert ledger_rows(database) == first.total
    assert there(database) == ALL


def test_a_dry_run_tells_what_the_real_run_then_does_and_changes_nothing(
    database: Database, around: Surroundings
) -> None:
    partitioned(database)
    fill(database)

    told = run(policy_on(database), around, dry_run=True)
    assert attached(database) == ALL
    assert database.one("SELECT to_regnamespace('housekeeping')") is None
    real = run(policy_on(database), around)

    assert told.plan is not None
    assert told.plan["would_delete"] == real.total
    assert told.plan["details"] == real.details
    whole = told.plan["whole_partitions"]
    assert [each["table"] for each in whole] == [f"public.events_{k}" for k in WHOLE]
    assert all(each["rows"] == 10 and each["bytes"] > 0 for each in whole)
    assert told.plan["by_rows"] == [f"public.events_{BOUNDARY}"]
    assert told.plan["counted_all"] is True


def test_the_console_shows_a_plan_with_its_partitions(
    database: Database, around: Surroundings, capsys: pytest.CaptureFixture[str]
) -> None:
    partitioned(database)
    fill(database)

    show_result(run(policy_on(database), around, dry_run=True).as_dict())

    shown = capsys.readouterr().out
    assert "goes whole: public.events_9, about 10 rows" in shown
    assert "by rows: public.events_3" in shown
    assert "    /* housekeeping.purge.delete */ DELETE FROM" in shown


def test_a_whole_partition_writes_next_to_no_wal(database: Database, around: Surroundings) -> None:
    """100,000 rows are 6 MB of WAL when they are deleted; 1.5 M cost 0.26 MB in the benchmark."""
    partitioned(database)
    database.run(
        "INSERT INTO events SELECT i, now() - interval '60 days', repeat('x', 50)"
        " FROM generate_series(1, 100000) i"
    )
    database.run("VACUUM ANALYZE events")
    policy = policy_on(database, partitions=PartitionCare(grace=timedelta(0)))
    before = database.one("SELECT pg_current_wal_insert_lsn() - '0/0'")

    detached, dropped = run(policy, around), run(policy, around)

    assert (detached.total, dropped.details["partitions_dropped"]) == (100_000, 6)
    written = database.one("SELECT pg_current_wal_insert_lsn() - '0/0'") - before
    assert written < 1_000_000


def test_only_leaves_that_lost_rows_are_vacuumed_afterwards(
    database: Database, around: Surroundings
) -> None:
    """VACUUM of the parent would go through every partition."""
    partitioned(database)
    fill(database)
    policy = policy_on(database, vacuum_after_rows=5)

    result = run(policy, around)

    assert result.success
    vacuumed = "SELECT relname::text FROM pg_stat_user_tables WHERE vacuum_count > 0"
    # Statistics arrive when the session that did it has ended.
    wait_until(lambda: database.column(vacuumed) == ["events_3"], 10)


def test_check_says_what_would_happen(database: Database) -> None:
    partitioned(database)
    fill(database)

    told = inspect_purge(policy_on(database)).told

    assert "6 partitions go whole, 1 by rows" in told


@pytest.mark.parametrize(
    ("type_", "value", "age"),
    [
        ("timestamp", "(now() AT TIME ZONE 'UTC')::date - i", {}),
        ("date", "(now() AT TIME ZONE 'UTC')::date - i", {}),
        ("bigint", "extract(epoch FROM date_trunc('day', now()) - i * interval '1 day')",
         {"unit": "s"}),
    ],
)  # fmt: skip
def test_every_type_of_age_has_its_partitions_judged_by_its_own_cutoff(
    database: Database, around: Surroundings, type_: str, value: str, age: Any
) -> None:
    database.run(f"CREATE TABLE events (id bigint, at {type_} NOT NULL) PARTITION BY RANGE (at)")
    edge = "(now() AT TIME ZONE 'UTC')::date - {} * 10 + 5"
    if type_ == "bigint":
        edge = f"extract(epoch FROM ({edge})::timestamp AT TIME ZONE 'UTC')::bigint"
    bounds = [database.one(f"SELECT ({edge.format(k)})::text") for k in range(11)]
    for k in range(10):
        database.run(
            f"CREATE TABLE events_{k} PARTITION OF events"
            f" FOR VALUES FROM ('{bounds[k + 1]}') TO ('{bounds[k]}')"
        )
    database.run(f"INSERT INTO events SELECT i, {value} FROM generate_series(0, 95) i")
    database.run("ANALYZE events")

    result = run(policy_on(database, age=Age(columns=("at",), **age)), around)

    # A date expires once its whole day has: the row of 30 days ago is not older than its cutoff.
    assert ages(database) == list(range(31 if type_ == "date" else 30))
    assert result.details["partitions_detached"] == len(WHOLE)


def test_the_newest_partition_stays_however_old_it_is(
    database: Database, around: Surroundings
) -> None:
    partitioned(database)
    fill(database)
    database.run("DROP TABLE events_0, events_1, events_2, events_3")

    result = run(policy_on(database), around)

    assert attached(database) == ["events_4"]
    assert database.count("events") == 0  # its rows went one by one
    assert result.details["partitions_detached"] == 5
    assert result.total == 60


def test_the_last_one_beside_a_default_stays(database: Database, around: Surroundings) -> None:
    partitioned(database)
    database.run("CREATE TABLE events_rest PARTITION OF events DEFAULT")
    fill(database)
    database.run("DROP TABLE events_0, events_1, events_2, events_3, events_4, events_5")

    run(policy_on(database), around)

    assert attached(database) == ["events_6", "events_rest"]


def test_beside_a_default_partition_whole_ones_go_and_the_default_gives_rows(
    database: Database, around: Surroundings
) -> None:
    partitioned(database)
    database.run("DROP TABLE events_8; CREATE TABLE events_rest PARTITION OF events DEFAULT")
    fill(database)

    result = run(policy_on(database), around)

    assert attached(database) == [*STAYING, "events_rest"]
    assert ages(database) == list(range(30))
    assert result.details["partitions_detached"] == 5
    assert database.count("events_rest") == 0
    assert result.total == EXPIRED


def test_levels_below_one_another_go_at_the_highest_that_expired(
    database: Database, around: Surroundings
) -> None:
    """By tenant, then by time; and one level more below one of the partitions."""
    database.run(
        "CREATE TABLE events (id bigint, created_at timestamptz, status text)"
        " PARTITION BY LIST (status);"
        "CREATE TABLE a PARTITION OF events FOR VALUES IN ('done') PARTITION BY RANGE (created_at);"
        "CREATE TABLE b PARTITION OF events FOR VALUES IN ('b') PARTITION BY RANGE (created_at);"
        "CREATE TABLE b_all PARTITION OF b FOR VALUES FROM ('2000-01-01') TO ('2100-01-01')"
    )
    add_partitions(database, "a")
    database.run(
        "CREATE TABLE old PARTITION OF b FOR VALUES FROM ('1990-01-01') TO ('2000-01-01')"
        " PARTITION BY HASH (id);"
        "CREATE TABLE old_0 PARTITION OF old FOR VALUES WITH (MODULUS 2, REMAINDER 0);"
        "CREATE TABLE old_1 PARTITION OF old FOR VALUES WITH (MODULUS 2, REMAINDER 1);"
        "INSERT INTO events SELECT i, '1995-01-01', 'b' FROM generate_series(1000, 1009) i"
    )
    fill(database)
    database.run("INSERT INTO events SELECT 500, now() - interval '40 days', 'b'")

    result = run(policy_on(database), around)

    assert ages(database) == list(range(30))
    assert attached(database, "a") == [f"a_{k}" for k in range(4)]
    assert attached(database, "b") == ["b_all"]
    assert attached(database, "old") == ["old_0", "old_1"]  # went with what it belongs to
    assert result.details["partitions_detached"] == len(WHOLE) + 1
    assert result.total == EXPIRED + 10 + 1


def test_only_partitions_that_can_hold_expired_rows_are_looked_at(
    database: Database, around: Surroundings
) -> None:
    partitioned(database)
    fill(database)
    run(policy_on(database), around)

    plan = run(policy_on(database, where="status = 'none'"), around, dry_run=True).plan

    assert plan is not None
    assert plan["by_rows"] == ["public.events_3"]


def test_rows_without_an_age_stay(database: Database, around: Surroundings) -> None:
    database.run(
        "CREATE TABLE events (id bigint, created_at timestamptz, status text)"
        " PARTITION BY RANGE (created_at)"
    )
    add_partitions(database, "events")
    database.run("CREATE TABLE events_rest PARTITION OF events DEFAULT")
    fill(database)
    database.run("INSERT INTO events VALUES (500, NULL)")

    run(policy_on(database), around)

    assert ages(database) == [*range(30), 500]


def test_a_table_without_partitions_has_nothing_to_do(
    database: Database, around: Surroundings
) -> None:
    database.run("CREATE TABLE events (created_at timestamptz) PARTITION BY RANGE (created_at)")

    result = run(policy_on(database), around)

    assert (result.total, result.success) == (0, True)


def test_names_that_need_quoting(database: Database, around: Surroundings) -> None:
    database.run(
        'CREATE SCHEMA "Odd ""schema"; CREATE TABLE "Odd ""schema"."we%ird.table"'
        ' (id bigint, "cr%eated" timestamptz NOT NULL) PARTITION BY RANGE ("cr%eated");'
        'CREATE TABLE "Odd ""schema"."o%ld.""1" PARTITION OF "Odd ""schema"."we%ird.table"'
        " FOR VALUES FROM ('1990-01-01') TO ('2000-01-01');"
        'CREATE TABLE "Odd ""schema"."n%ew.""2" PARTITION OF "Odd ""schema"."we%ird.table"'
        " FOR VALUES FROM ('2000-01-01') TO (MAXVALUE);"
        'INSERT INTO "Odd ""schema"."we%ird.table" VALUES (1, \'1995-01-01\'), (2, \'2005-01-01\'),'
        " (3, now())"
    )
    policy = policy_on(
        database,
        TableName("we%ird.table", 'Odd "schema'),
        age=Age(columns=("cr%eated",)),
        rules=(ExpiryRule(reason="expired", keep_for=MONTH),),
    )

    result = run(policy, around)

    assert result.details["partitions_detached"] == 1
    assert database.column('SELECT id FROM "Odd ""schema"."we%ird.table"') == [3]
    graceless = replace(policy, partitions=replace(policy.partitions, grace=timedelta(0)))
    database.run("UPDATE housekeeping.detached_partition SET drop_after = now()")
    assert run(graceless, around).details["partitions_dropped"] == 1
    assert database.one("""SELECT to_regclass('"Odd ""schema"."o%ld.""1"') IS NULL""")
