"""Any name PostgreSQL takes is a name here: of tables, schemas, columns and children."""

import pytest
from psycopg2 import sql

from housekeeping.engine.run import Surroundings
from housekeeping.policies.purge import Age, Equals, ExpiryRule, KeptBy, TableName
from tests.integration.database import Database
from tests.integration.runs import MONTH, policy_on, run

BOTH_WALKERS = pytest.mark.parametrize("walker", ["heap", "index"])
NAMES = [
    'double "quotes"',
    "single 'quotes'",
    "semi;colon -- and comment",
    "dots.in.it",
    "per%cent %s %(name)s %%",
    "{braces} {0}",
    "back\\slash",
    "$dollar$",
    "Tabelle für 日本語",
    "select",
    "UPPER",
    " leading and trailing ",
    "x" * 63,
    "hk_doomed",
    "hk_child",
    "hk_keeper",
    "hk_gone",
    "hk_expired",
    "hk_pinned",
    "hk_reason",
    "hk_row",
    "hk_child_0",
    "hk_head",
    "hk_key",
]
EVERY_NAME = pytest.mark.parametrize("name", NAMES)


def make(database: Database, schema: str, table: str, child: str, column: str) -> None:
    """Make a table and a child of it, all of whose names are given; 60 rows, 2 children each."""
    names = {
        "schema": sql.Identifier(schema),
        "table": sql.Identifier(schema, table),
        "child": sql.Identifier(schema, child),
        "column": sql.Identifier(column),
    }
    statement = sql.SQL(
        "CREATE SCHEMA IF NOT EXISTS {schema};"
        "CREATE TABLE {table} ({column} timestamptz, id int UNIQUE, status text);"
        "CREATE INDEX ON {table} ({column});"
        "CREATE TABLE {child} (id int REFERENCES {table} (id) ON DELETE CASCADE, held bool);"
        "CREATE INDEX ON {child} (id);"
        "INSERT INTO {table} SELECT now() - i * interval '1 day', i, 'done'"
        " FROM generate_series(1, 60) i;"
        "INSERT INTO {child} SELECT id, false FROM {table}, generate_series(1, 2)"
    )
    with database.session() as owner, owner, owner.cursor() as cursor:
        cursor.execute(statement.format(**names).as_string(owner))


def left(database: Database, schema: str, table: str) -> int:
    name = '"' + table.replace('"', '""') + '"'
    home = '"' + schema.replace('"', '""') + '"'
    with database.session() as reader, reader.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {home}.{name}")
        row = cursor.fetchone()
        assert row is not None
        return int(row[0])


@EVERY_NAME
@BOTH_WALKERS
def test_a_table_of_any_name_is_purged(
    database: Database, around: Surroundings, name: str, walker: str
) -> None:
    make(database, "public", name, "child", "created_at")
    policy = policy_on(database, name)

    assert run(policy, around, dry_run=True).plan is not None
    assert run(policy, around, walker=walker, limit=1).total == 1
    assert run(policy, around, walker=walker).details == {"expired": 30, "child": 60}
    assert left(database, "public", name) == 29


@EVERY_NAME
@BOTH_WALKERS
def test_a_column_of_any_name_is_an_age(
    database: Database, around: Surroundings, name: str, walker: str
) -> None:
    make(database, "public", "events", "child", name)
    kept = (KeptBy(table="child", column="id", refers_to="id"),)

    result = run(policy_on(database, age=Age(expression=name)), around, walker=walker)

    assert result.total == 31
    again = policy_on(database, age=Age(columns=(name,)), kept_by=kept)
    assert run(again, around, walker=walker).success


@EVERY_NAME
def test_a_child_and_a_keeper_of_any_name_are_respected(
    database: Database, around: Surroundings, name: str
) -> None:
    make(database, "public", "events", name, "created_at")
    with database.session() as owner, owner, owner.cursor() as cursor:
        child = sql.Identifier(name).as_string(owner)
        cursor.execute(f"UPDATE {child} SET held = true WHERE id = 40")
    kept = KeptBy(
        table=name, column="id", refers_to="id", while_any=(Equals(column="held", values=(True,)),)
    )
    result = run(policy_on(database, kept_by=(kept,)), around)

    assert result.details == {"expired": 30, name: 60}
    assert left(database, "public", name) == 60


@EVERY_NAME
def test_a_schema_of_any_name_is_looked_into(
    database: Database, around: Surroundings, name: str
) -> None:
    make(database, name, "events", "child", "created_at")

    result = run(policy_on(database, TableName("events", name)), around)

    assert result.total == 31


@EVERY_NAME
def test_a_status_column_of_any_name_is_compared(
    database: Database, around: Surroundings, name: str
) -> None:
    make(database, "public", "events", "child", "created_at")
    with database.session() as owner, owner, owner.cursor() as cursor:
        column = sql.Identifier(name).as_string(owner)
        cursor.execute(f"ALTER TABLE events RENAME status TO {column}")
    rules = (ExpiryRule(reason="a %s b", keep_for=MONTH, column=name, value="done"),)

    assert run(policy_on(database, rules=rules), around).details["a %s b"] == 31


@BOTH_WALKERS
def test_a_name_of_more_bytes_than_the_server_keeps_means_what_it_kept(
    database: Database, around: Surroundings, walker: str
) -> None:
    table, column = "ä" * 35, "t" * 70  # 70 bytes each
    make(database, "public", table, "child", column)

    result = run(policy_on(database, table, age=Age(columns=(column,))), around, walker=walker)

    assert result.total == 31
    assert sum("63 bytes" in warning for warning in result.warnings) == 2


def test_a_table_in_another_schema_is_found_by_its_qualified_name(
    database: Database, around: Surroundings
) -> None:
    make(database, "other", "events", "child", "created_at")

    assert run(policy_on(database, "other.events"), around).total == 31


def test_a_name_with_a_dot_wins_over_a_table_in_a_schema(
    database: Database, around: Surroundings
) -> None:
    make(database, "other", "events", "child", "created_at")
    make(database, "public", "other.events", "child", "created_at")

    run(policy_on(database, "other.events"), around)

    assert (left(database, "other", "events"), left(database, "public", "other.events")) == (60, 29)


@pytest.mark.parametrize("name", ["hk_keeper", "hk_doomed", "hk_child"])
def test_a_table_called_like_an_alias_of_ours_is_protected_by_its_keeper(
    database: Database, around: Surroundings, name: str
) -> None:
    database.run(
        f"CREATE TABLE {name} (created_at timestamptz, id int);"
        "CREATE TABLE holds (id int, event int);"
        f"INSERT INTO {name} SELECT now() - i * interval '1 day', i FROM generate_series(1, 60) i;"
        "INSERT INTO holds VALUES (1, 40), (40, 7)"
    )
    kept = KeptBy(table="holds", column="event", refers_to="id")

    run(policy_on(database, name, kept_by=(kept,)), around)

    assert database.column(f"SELECT id FROM {name} WHERE id >= 30") == [40]
