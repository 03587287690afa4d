"""What keeps a partition from going unread: then every row of it goes, or stays, by itself."""

from dataclasses import replace
from typing import Any

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.policies.archive import ArchiveTo
from housekeeping.policies.errors import PolicyRefused, PrivilegeMissing
from housekeeping.policies.purge import Age, KeptBy, PurgePolicy
from housekeeping.policies.result import StopReason
from tests.integration.database import Database
from tests.integration.partitions import (
    DAYS,
    EXPIRED,
    WHOLE,
    add_partitions,
    ages,
    attached,
    fill,
    partitioned,
)
from tests.integration.runs import BRISK, per_status, policy_on, run

STAYING = [f"events_{k}" for k in range(4)]
ALL = [f"events_{k}" for k in range(10)]


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
        with pytest.raises(PrivilegeMissing) as refused:
            run(policy, around)
        assert refused.value.message.count("GRANT SELECT, UPDATE, DELETE ON") > 1
        database.run("GRANT SELECT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO sweeper")
        result = run(policy, around)
    finally:
        database.run("DROP OWNED BY sweeper; DROP ROLE sweeper")

    assert attached(database) == ALL
    assert ages(database) == list(range(30))
    assert result.details["partitions_detached"] == 0
    assert {entry["why"] for entry in result.tables} == {"its rows went one by one"}


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
