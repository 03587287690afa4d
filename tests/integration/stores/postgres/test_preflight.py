"""A policy that would do harm, or could not work, is refused with a remedy that works."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
import pytest
from psycopg2 import sql

from housekeeping.engine.run import Surroundings
from housekeeping.policies.errors import (
    ColumnMissing,
    NotATable,
    PolicyRefused,
    PrivilegeMissing,
    ReplicaIdentityMissing,
    RowSecurityActive,
    TableMissing,
    UnindexedForeignKey,
)
from housekeeping.policies.purge import Age, ExpiryRule, KeptBy
from tests.integration.database import Database
from tests.integration.refusals import refused
from tests.integration.runs import MONTH, policy_on, run

ROLE = 'clean "er"'


def remedy(error: PolicyRefused) -> str:
    return str(error.facts["remedy"])


@contextmanager
def role(database: Database) -> Iterator[Database]:
    """A role that may make the ledger and nothing else; its name needs quoting."""
    name = sql.Identifier(ROLE)
    with psycopg2.connect(database.url) as owner, owner.cursor() as cursor:
        cursor.execute("SELECT current_database()")
        (here,) = cursor.fetchone() or ("",)
        cursor.execute(sql.SQL("CREATE ROLE {} LOGIN").format(name))
        cursor.execute(
            sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(sql.Identifier(here), name)
        )
    owner.close()
    try:
        yield Database(database.url.replace("postgres@", "clean%20%22er%22@"), database.version)
    finally:
        database.run('DROP OWNED BY "clean ""er"""; DROP ROLE "clean ""er"""')


@pytest.mark.parametrize("name", ["event", "Events", "evnets", "public.event"])
def test_a_table_that_is_not_there_is_refused_with_a_guess(
    events: Database, around: Surroundings, name: str
) -> None:
    if name == "Events":
        assert run(policy_on(events, name), around).success  # as SQL reads it
        return
    refused(policy_on(events, name), around, TableMissing, "Did you mean 'events'")


@pytest.mark.parametrize(
    "change",
    [
        {"age": Age(columns=("create_at",))},
        {"age": Age(expression="create_at")},
        {"age": Age(columns=("created_at",), never_before="create_at")},
        {"rules": (ExpiryRule(reason="x", keep_for=MONTH, column="create_at", value="1"),)},
        {"kept_by": (KeptBy(table="events", column="id", refers_to="create_at"),)},
        {"kept_by": (KeptBy(table="events", column="create_at", refers_to="id"),)},
    ],
)
def test_a_column_that_is_not_there_is_refused_with_a_guess(
    events: Database, around: Surroundings, change: dict[str, Any]
) -> None:
    refused(policy_on(events, **change), around, ColumnMissing, "Did you mean 'created_at'")


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        ("CREATE VIEW thing AS SELECT * FROM events", "a view"),
        ("CREATE MATERIALIZED VIEW thing AS SELECT * FROM events", "a materialized view"),
        ("CREATE TABLE thing (created_at timestamptz); CREATE TABLE heir () INHERITS (thing)",
         "inherit"),
        ("CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;"
         "CREATE FOREIGN TABLE thing (created_at timestamptz) SERVER s", "a foreign table"),
    ],
)  # fmt: skip
def test_what_is_no_ordinary_table_is_refused(
    events: Database, around: Surroundings, made: str, kind: str
) -> None:
    events.run(made)

    refused(policy_on(events, "thing"), around, NotATable, kind)


@pytest.mark.parametrize("name", ["pg_class", "information_schema.sql_features"])
def test_the_servers_own_tables_are_refused(
    events: Database, around: Surroundings, name: str
) -> None:
    refused(policy_on(events, name), around, PolicyRefused, "belongs to the server")


def test_the_ledger_itself_is_refused(events: Database, around: Surroundings) -> None:
    run(policy_on(events), around)

    policy = policy_on(events, "housekeeping.run", age=Age(columns=("started_at",)))
    refused(policy, around, PolicyRefused, "belongs to the server or to the ledger")


@pytest.mark.parametrize("action", ["CASCADE", "NO ACTION", "RESTRICT", "SET NULL"])
def test_an_unindexed_foreign_key_is_refused_until_the_remedy_was_run(
    events: Database, around: Surroundings, action: str
) -> None:
    events.run(f'CREATE TABLE "odd""child" ("ev""ent" bigint REFERENCES events ON DELETE {action})')

    error = refused(policy_on(events), around, UnindexedForeignKey)

    events.run(remedy(error))
    assert run(policy_on(events), around).success


@pytest.mark.parametrize(
    "index",
    ["(line, event)", "(event) WHERE line > 0", "((event + 1))"],
    ids=["not leading", "partial", "expression"],
)
def test_an_index_that_does_not_serve_the_key_does_not_count(
    events: Database, around: Surroundings, index: str
) -> None:
    events.run("CREATE TABLE logs (event bigint REFERENCES events ON DELETE CASCADE, line int)")
    events.run(f"CREATE INDEX ON logs {index}")

    refused(policy_on(events), around, UnindexedForeignKey)


def test_an_index_that_serves_a_key_of_two_columns_in_any_order_counts(
    events: Database, around: Surroundings
) -> None:
    events.run(
        "CREATE UNIQUE INDEX pair ON events (id, status);"
        "CREATE TABLE logs (a bigint, b text, line int,"
        " FOREIGN KEY (a, b) REFERENCES events (id, status) ON DELETE CASCADE);"
        "CREATE INDEX ON logs (b, a, line)"
    )

    assert run(policy_on(events), around).success


def test_a_childs_own_unindexed_children_are_refused(
    events: Database, around: Surroundings
) -> None:
    events.run(
        "CREATE TABLE logs (id int PRIMARY KEY, event bigint REFERENCES events ON DELETE CASCADE);"
        "CREATE INDEX ON logs (event);"
        "CREATE TABLE words (log int REFERENCES logs ON DELETE CASCADE)"
    )

    error = refused(policy_on(events), around, UnindexedForeignKey, "public.words")

    events.run(remedy(error))
    assert run(policy_on(events), around).success


def test_row_level_security_that_hides_rows_is_refused(
    events: Database, around: Surroundings
) -> None:
    events.run("ALTER TABLE events ENABLE ROW LEVEL SECURITY")
    assert run(policy_on(events), around).success  # a superuser sees all rows
    with role(events) as cleaner:
        events.run('GRANT SELECT, UPDATE, DELETE ON events TO "clean ""er"""')
        events.run('GRANT ALL ON SCHEMA housekeeping TO "clean ""er"""')
        events.run('GRANT ALL ON ALL TABLES IN SCHEMA housekeeping TO "clean ""er"""')
        error = refused(policy_on(cleaner), around, RowSecurityActive)

        events.run(error.message.strip().partition("run: ")[2])
        assert run(policy_on(cleaner), around).success


@pytest.mark.parametrize("protects", ["keeper", "child"])
def test_row_level_security_on_a_table_that_protects_rows_is_refused(
    events: Database, around: Surroundings, protects: str
) -> None:
    """A hold we can't see holds nothing."""
    key = " REFERENCES events ON DELETE CASCADE" if protects == "child" else ""
    events.run(
        f"CREATE TABLE holds (event bigint{key}); CREATE INDEX ON holds (event);"
        "INSERT INTO events VALUES (1, now() - interval '1 year'); INSERT INTO holds VALUES (1);"
        "ALTER TABLE holds ENABLE ROW LEVEL SECURITY"
    )
    kept = (KeptBy(table="holds", column="event", refers_to="id"),) if protects == "keeper" else ()
    with role(events) as cleaner:
        events.run('GRANT SELECT, UPDATE, DELETE ON events, holds TO "clean ""er"""')
        refused(policy_on(cleaner, kept_by=kept), around, RowSecurityActive, "holds")


@pytest.mark.parametrize("granted", ["", "SELECT", "SELECT, DELETE"])
def test_a_missing_privilege_is_refused_with_a_grant_that_works(
    database: Database, around: Surroundings, granted: str
) -> None:
    database.run('CREATE TABLE "Odd""Events" (created_at timestamptz)')
    with role(database) as cleaner:
        if granted:
            database.run(f'GRANT {granted} ON "Odd""Events" TO "clean ""er"""')
        error = refused(policy_on(cleaner, 'Odd"Events'), around, PrivilegeMissing)

        database.run(remedy(error))
        assert run(policy_on(cleaner, 'Odd"Events'), around).success


@pytest.mark.parametrize("action", ["CASCADE", "NO ACTION"])
def test_a_missing_privilege_on_a_child_is_refused_with_a_grant_that_works(
    events: Database, around: Surroundings, action: str
) -> None:
    events.run(
        f"CREATE TABLE logs (event bigint REFERENCES events ON DELETE {action});"
        "CREATE INDEX ON logs (event);"
        "INSERT INTO events VALUES (1, now() - interval '1 year')"
    )
    with role(events) as cleaner:
        events.run('GRANT SELECT, UPDATE, DELETE ON events TO "clean ""er"""')
        error = refused(policy_on(cleaner), around, PrivilegeMissing, "logs")

        events.run(remedy(error))
        assert run(policy_on(cleaner), around).total == 1


def test_a_publication_of_deletes_without_replica_identity_is_refused(
    database: Database, around: Surroundings
) -> None:
    database.run('CREATE TABLE "Odd Events" (created_at timestamptz)')
    database.run("CREATE PUBLICATION everything FOR ALL TABLES")

    error = refused(policy_on(database, "Odd Events"), around, ReplicaIdentityMissing, "everything")

    database.run(remedy(error).partition(", or")[0])
    assert run(policy_on(database, "Odd Events"), around).success


def test_a_delete_rule_is_refused(events: Database, around: Surroundings) -> None:
    events.run("CREATE RULE softly AS ON DELETE TO events DO INSTEAD NOTHING")

    refused(policy_on(events), around, PolicyRefused, "softly")


def test_a_delete_trigger_is_told(events: Database, around: Surroundings) -> None:
    events.run(
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';"
        "CREATE TRIGGER audit AFTER DELETE ON events FOR EACH ROW EXECUTE FUNCTION f();"
        "CREATE TRIGGER other AFTER INSERT ON events FOR EACH ROW EXECUTE FUNCTION f()"
    )

    warnings = run(policy_on(events), around, dry_run=True).warnings

    told = [warning for warning in warnings if "audit" in warning]
    assert len(told) == 1
    assert "other" not in told[0]
