"""Partitioned tables: whole partitions go without being read, all else goes row by row."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.operations.inspection import inspect_purge
from housekeeping.policies.archive import ArchiveTo
from housekeeping.policies.errors import PolicyRefused, PrivilegeMissing
from housekeeping.policies.purge import Age, ExpiryRule, KeptBy, PurgePolicy, TableName
from housekeeping.policies.result import StopReason
from tests.integration.database import Database
from tests.integration.partitions import (
    BOUNDARY,
    DAYS,
    EXPIRED,
    WHOLE,
    add_partitions,
    attached,
    fill,
    partitioned,
    there,
)
from tests.integration.runs import BRISK, MONTH, ledger_rows, per_status, policy_on, run

STAYING = [f"events_{k}" for k in range(4)]
ALL = [f"events_{k}" for k in range(10)]


def ages(database: Database, table: str = "events") -> list[int]:
    """Return the rows that are left; a row's id is its age in days."""
    return database.column(f"SELECT DISTINCT id::int FROM {table} ORDER BY 1")


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


@pytest.mark.parametrize(
    "key",
    ["LIST (status)", "HASH (id)", "RANGE (id)", "RANGE (date_trunc('day', at))",
     "RANGE (at, id)", "LIST (at)"],
)  # fmt: skip
def test_a_table_partitioned_by_another_key_goes_by_rows(
    database: Database, around: Surroundings, key: str
) -> None:
    parts = {
        "LIST (status)": ["IN ('done')", "IN ('other')"],
        "HASH (id)": ["WITH (MODULUS 2, REMAINDER 0)", "WITH (MODULUS 2, REMAINDER 1)"],
        "RANGE (id)": ["FROM (0) TO (50)", "FROM (50) TO (1000)"],
        "RANGE (date_trunc('day', at))": ["FROM ('2000-01-01') TO ('2000-01-02')"],
        "RANGE (at, id)": ["FROM ('2000-01-01', 0) TO ('2000-01-02', 0)"],
        "LIST (at)": ["IN ('2000-01-01 10:00')"],
    }
    database.run(
        "CREATE TABLE events (id bigint, at timestamp, status text NOT NULL) PARTITION BY " + key
    )
    for number, bounds in enumerate(parts[key]):
        database.run(f"CREATE TABLE events_{number} PARTITION OF events FOR VALUES {bounds}")
    if "HASH" not in key:
        database.run("CREATE TABLE events_rest PARTITION OF events DEFAULT")
    database.run(
        "INSERT INTO events SELECT i, (now() AT TIME ZONE 'UTC')::date - i, 'done'"
        " FROM generate_series(0, 95) i;"
        "INSERT INTO events VALUES (1000, '2000-01-01 10:00', 'done'), (1001, NULL, 'other')"
        if "RANGE (at, id)" not in key
        else "INSERT INTO events SELECT i, (now() AT TIME ZONE 'UTC')::date - i, 'done'"
        " FROM generate_series(0, 95) i;"
        "INSERT INTO events VALUES (1001, now(), 'other')"
    )
    parts_before = attached(database)

    result = run(policy_on(database, age=Age(columns=("at",))), around)

    assert ages(database) == [*range(30), 1001]
    assert attached(database) == parts_before
    assert (result.details["partitions_detached"], result.success) == (0, True)


def blocked_by(how: str, database: Database) -> PurgePolicy:
    """Make a whole partition unfit to go unread, and return the policy."""
    sql = {
        "key": "CREATE TABLE logs (event bigint, at timestamptz, FOREIGN KEY (event, at)"
        " REFERENCES events (id, created_at) ON DELETE CASCADE); CREATE INDEX ON logs (event, at)",
        "trigger": "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';"
        "CREATE TRIGGER audit AFTER DELETE ON events FOR EACH ROW EXECUTE FUNCTION f()",
        "keeper": "CREATE TABLE holds (event bigint)",
    }
    if how in sql:
        database.run(sql[how])
    given: dict[str, Any] = {
        "statuses": {"rules": per_status(done=30)},
        "where": {"where": "status = 'done'"},
        "keeper": {"kept_by": (KeptBy(table="holds", column="event", refers_to="id"),)},
        "expression": {"age": Age(expression="created_at + interval '0 s'")},
        "several": {"age": Age(columns=("created_at", "created_at"))},
        "row budget": {"pace": replace(BRISK, row_budget=10_000)},
    }
    return policy_on(database, **given.get(how, {}))


@pytest.mark.parametrize(
    ("how", "why"),
    [("statuses", "statuses"), ("where", "where"), ("keeper", "keeps rows"),
     ("expression", "no single column"), ("several", "no single column"),
     ("key", "foreign key"), ("trigger", "audit"), ("row budget", "limit")],
)  # fmt: skip
def test_what_may_protect_a_row_makes_every_row_go_by_itself(
    database: Database, around: Surroundings, how: str, why: str
) -> None:
    database.run(
        "CREATE TABLE events (id bigint, created_at timestamptz, status text,"
        " PRIMARY KEY (id, created_at)) PARTITION BY RANGE (created_at)"
    )
    add_partitions(database, "events")
    fill(database)
    policy = blocked_by(how, database)

    plan = run(policy, around, dry_run=True).plan
    result = run(policy, around)

    assert plan is not None
    assert why in plan["because"]
    assert attached(database) == ALL
    assert ages(database) == list(range(30))
    assert (result.total, result.success) == (EXPIRED, True)
    assert {each["done"] for each in result.tables} == {"deleted"}


def test_a_limit_is_kept_to_the_row(database: Database, around: Surroundings) -> None:
    partitioned(database)
    fill(database)

    result = run(policy_on(database), around, limit=17)

    assert (result.total, result.stop_reason) == (17, StopReason.ROW_BUDGET)
    assert database.count("events") == DAYS - 17
    assert attached(database) == ALL


def test_rows_kept_by_another_table_stay_in_every_partition(
    database: Database, around: Surroundings
) -> None:
    partitioned(database)
    fill(database)
    database.run("CREATE TABLE holds (event bigint); INSERT INTO holds VALUES (35), (61), (90)")
    kept = (KeptBy(table="holds", column="event", refers_to="id"),)

    run(policy_on(database, kept_by=kept), around)

    assert ages(database) == [*range(30), 35, 61, 90]


def test_children_of_a_partitioned_table_go_with_their_rows(
    database: Database, around: Surroundings
) -> None:
    database.run(
        "CREATE TABLE events (id bigint, created_at timestamptz, status text,"
        " PRIMARY KEY (id, created_at)) PARTITION BY RANGE (created_at)"
    )
    add_partitions(database, "events")
    fill(database)
    database.run(
        "CREATE TABLE logs (event bigint, at timestamptz, FOREIGN KEY (event, at)"
        " REFERENCES events (id, created_at) ON DELETE CASCADE); CREATE INDEX ON logs (event, at);"
        "INSERT INTO logs SELECT id, created_at FROM events, generate_series(1, 2)"
    )

    result = run(policy_on(database), around)

    assert result.details["logs"] == 2 * (EXPIRED)
    assert database.count("logs") == 60


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


def test_a_foreign_partition_is_left_to_its_own_server(
    database: Database, around: Surroundings
) -> None:
    partitioned(database)
    fill(database)
    database.run(
        # Without a handler no query can even be planned on it.
        "CREATE FOREIGN DATA WRAPPER silent; CREATE SERVER away FOREIGN DATA WRAPPER silent;"
        "CREATE FOREIGN TABLE far PARTITION OF events"
        " FOR VALUES FROM ('1990-01-01') TO ('2000-01-01') SERVER away"
    )

    result = run(policy_on(database), around)

    assert attached(database) == [*STAYING, "far"]
    assert database.count("events_3") == 4
    assert any("far is a foreign partition" in warning for warning in result.warnings)
    assert result.details["partitions_detached"] == len(WHOLE)


def test_a_table_without_partitions_has_nothing_to_do(
    database: Database, around: Surroundings
) -> None:
    database.run("CREATE TABLE events (created_at timestamptz) PARTITION BY RANGE (created_at)")

    result = run(policy_on(database), around)

    assert (result.total, result.success) == (0, True)


def test_a_table_that_refers_to_itself_is_refused(database: Database, around: Surroundings) -> None:
    """A row in one partition may be needed in another."""
    database.run(
        "CREATE TABLE events (id bigint, created_at timestamptz, status text, parent bigint,"
        " parent_at timestamptz, PRIMARY KEY (id, created_at),"
        " FOREIGN KEY (parent, parent_at) REFERENCES events ON DELETE CASCADE)"
        " PARTITION BY RANGE (created_at); CREATE INDEX ON events (parent, parent_at)"
    )
    add_partitions(database, "events")
    fill(database)

    with pytest.raises(PolicyRefused, match="refers to itself"):
        run(policy_on(database), around)

    assert database.count("events") == DAYS


def test_whoever_may_not_alter_the_table_takes_rows(
    database: Database, around: Surroundings
) -> None:
    partitioned(database)
    fill(database)
    database.run("DROP ROLE IF EXISTS sweeper; CREATE ROLE sweeper LOGIN")
    name = database.one("SELECT current_database()")
    database.run(f"GRANT CREATE ON DATABASE {name} TO sweeper; GRANT SELECT ON events TO sweeper")
    url = database.url.replace("postgres@", "sweeper@")
    policy = policy_on(Database(url, database.version))
    try:
        with pytest.raises(PrivilegeMissing, match="events_"):
            run(policy, around)
        database.run("GRANT SELECT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO sweeper")
        result = run(policy, around)
    finally:
        database.run("DROP OWNED BY sweeper; DROP ROLE sweeper")

    assert attached(database) == ALL
    assert ages(database) == list(range(30))
    assert result.details["partitions_detached"] == 0


def test_an_archive_moves_the_rows_of_every_partition_to_the_dated_tables_of_the_whole(
    database: Database, around: Surroundings
) -> None:
    partitioned(database)
    fill(database)
    policy = policy_on(database, archive=ArchiveTo(prefix="events_archive"))

    result = run(policy, around)

    assert ages(database) == list(range(30))
    assert attached(database) == ALL
    assert result.total == EXPIRED
    sources = database.column("SELECT DISTINCT source FROM housekeeping.archive_table")
    assert sources == ["public.events"]
    assert database.one("SELECT sum(rows) FROM housekeeping.archive_table") == EXPIRED


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
