"""What the catalog says of a table."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection

from housekeeping.policies.purge import TableName
from housekeeping.stores.postgres.catalog import TableFacts, describe_table, find_table, table_names
from housekeeping.stores.postgres.connection import connected
from tests.integration.database import Database


@pytest.fixture
def connection(events: Database) -> Iterator[Connection]:
    with connected(events.url, "hk:test") as connection, connection.begin():
        yield connection


def facts_of(connection: Connection, name: str) -> TableFacts:
    oid = find_table(connection, TableName(name))
    assert oid is not None
    return describe_table(connection, oid)


def test_columns_come_in_order_with_their_types_and_without_dropped_ones(
    events: Database, connection: Connection
) -> None:
    events.run("ALTER TABLE events DROP COLUMN note, ADD at timestamp(3), ADD cost numeric(9, 2)")

    assert facts_of(connection, "events").columns == {
        "id": "bigint",
        "created_at": "timestamp with time zone",
        "status": "text",
        "at": "timestamp(3) without time zone",
        "cost": "numeric(9,2)",
    }


def test_its_size_is_what_it_has_now_not_when_it_was_analyzed(
    events: Database, connection: Connection
) -> None:
    assert facts_of(connection, "events").pages == 0
    events.run("INSERT INTO events SELECT i FROM generate_series(1, 10000) i")

    facts = facts_of(connection, "events")
    assert facts.pages > 40
    assert facts.rows < 0


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (TableName("events"), True),
        (TableName("EVENTS"), True),
        (TableName("public.events"), True),
        (TableName('"events"'), True),
        (TableName("events", "public"), True),
        (TableName("EVENTS", "public"), False),
        (TableName("events", "other"), False),
        (TableName("events_created_at"), False),
        (TableName(""), False),
    ],
)
def test_a_table_is_found_as_it_stands_or_as_sql_reads_it(
    connection: Connection,
    asked: TableName,
    found: bool,  # noqa: FBT001
) -> None:
    assert (find_table(connection, asked) is not None) is found


def test_an_unqualified_name_means_the_first_in_the_search_path(
    events: Database, connection: Connection
) -> None:
    events.run("CREATE SCHEMA first; CREATE TABLE first.events (id int)")
    assert facts_of(connection, "events").schema == "public"

    connection.exec_driver_sql("SET LOCAL search_path = first, public")
    assert facts_of(connection, "events").schema == "first"


@pytest.mark.parametrize(
    ("action", "cascades", "forbids"),
    [
        ("CASCADE", True, False),
        ("NO ACTION", False, True),
        ("RESTRICT", False, True),
        ("SET NULL", False, False),
        ("SET DEFAULT", False, False),
    ],
)
def test_inbound_foreign_keys_are_known_with_what_they_do(
    events: Database,
    connection: Connection,
    action: str,
    cascades: bool,  # noqa: FBT001
    forbids: bool,  # noqa: FBT001
) -> None:
    events.run(
        f"CREATE TABLE logs (line int, event bigint REFERENCES events ON DELETE {action});"
        "CREATE TABLE unrelated (event bigint)"
    )

    (key,) = facts_of(connection, "events").foreign_keys
    assert (key.child, key.columns, key.parent_columns) == ("logs", ("event",), ("id",))
    assert (key.cascades, key.forbids, key.indexed) == (cascades, forbids, False)

    events.run("CREATE INDEX ON logs (event)")
    assert facts_of(connection, "events").foreign_keys[0].indexed


def test_a_key_of_a_partitioned_child_is_one_key(events: Database, connection: Connection) -> None:
    events.run(
        "CREATE TABLE logs (event bigint REFERENCES events ON DELETE CASCADE)"
        " PARTITION BY HASH (event);"
        "CREATE TABLE logs_0 PARTITION OF logs FOR VALUES WITH (MODULUS 2, REMAINDER 0);"
        "CREATE TABLE logs_1 PARTITION OF logs FOR VALUES WITH (MODULUS 2, REMAINDER 1);"
        "CREATE INDEX ON logs (event)"
    )

    (key,) = facts_of(connection, "events").foreign_keys
    assert (key.child, key.indexed) == ("logs", True)


def test_a_suggestion_comes_from_the_users_tables_only(connection: Connection) -> None:
    assert table_names(connection) == ["events"]
