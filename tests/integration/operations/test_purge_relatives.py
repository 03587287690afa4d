"""Rows of other tables that go along, keep a row, or point back at their own table."""

from dataclasses import replace
from datetime import timedelta

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.policies.purge import Equals, KeptBy, TableName, YoungerThan
from housekeeping.policies.result import StopReason
from housekeeping.stores.postgres.emptying import CHILD_ROWS
from tests.integration.database import Database
from tests.integration.runs import SMALL_WINDOWS, ledger_rows, policy_on, run

BOTH_WALKERS = pytest.mark.parametrize("walker", ["heap", "index"])
LOGS = (
    "CREATE TABLE logs (event bigint REFERENCES events ON DELETE CASCADE, line int);"
    "CREATE INDEX ON logs (event)"
)


def fill(database: Database, days: int) -> None:
    database.run(
        "INSERT INTO events SELECT i, now() - i * interval '1 day' FROM generate_series(1, %s) i",
        days,
    )


@BOTH_WALKERS
def test_children_that_go_along_are_counted_by_their_own_name(
    events: Database, around: Surroundings, walker: str
) -> None:
    fill(events, 100)
    events.run(LOGS)
    events.run("INSERT INTO logs SELECT id, n FROM events, generate_series(1, 3) n")
    policy = policy_on(events, child_names=(("logs", "lines"),))

    result = run(policy, around, walker=walker)

    assert result.details == {"expired": 71, "lines": 213}
    assert (result.total, ledger_rows(events)) == (71, 71)
    assert events.column("SELECT DISTINCT event FROM logs ORDER BY 1") == list(range(1, 30))


def test_a_child_table_called_like_a_reason_does_not_swell_the_total(
    events: Database, around: Surroundings
) -> None:
    fill(events, 100)
    events.run(LOGS.replace("logs", "expired"))
    events.run("INSERT INTO expired SELECT id, n FROM events, generate_series(1, 3) n")

    result = run(policy_on(events), around)

    assert (result.total, ledger_rows(events)) == (71, 71)


def test_a_child_that_refers_by_two_keys_is_counted_once(
    events: Database, around: Surroundings
) -> None:
    fill(events, 100)
    events.run(
        "CREATE TABLE links (a bigint REFERENCES events ON DELETE CASCADE,"
        " b bigint REFERENCES events ON DELETE CASCADE);"
        "CREATE INDEX ON links (a); CREATE INDEX ON links (b);"
        "INSERT INTO links SELECT id, id - 1 FROM events WHERE id > 1"
    )

    result = run(policy_on(events), around)

    assert result.details == {"expired": 71, "links": 71}
    assert events.count("links") == 28


@BOTH_WALKERS
def test_a_parent_with_more_children_than_a_transaction_takes_is_drained_in_several(
    events: Database, around: Surroundings, walker: str
) -> None:
    fill(events, 40)
    events.run(LOGS)
    events.run("INSERT INTO logs SELECT 35, n FROM generate_series(1, 60000) n")
    events.run("INSERT INTO logs SELECT id, 1 FROM events WHERE id <> 35")
    events.run("ANALYZE")

    result = run(policy_on(events), around, walker=walker)

    assert (result.details, result.total) == ({"expired": 11, "logs": 60_010}, 11)
    assert (events.count("events"), events.count("logs")) == (29, 29)
    most = events.one("SELECT max((counts->>'logs')::int) FROM housekeeping.run_window")
    assert most <= CHILD_ROWS + 11
    assert (result.stop_reason, result.success) == (StopReason.EXHAUSTED, True)


@BOTH_WALKERS
def test_draining_a_parent_leaves_the_children_of_others_in_a_partitioned_table_alone(
    events: Database, around: Surroundings, walker: str
) -> None:
    """Each partition counts its own ctids from (0,1)."""
    fill(events, 40)
    events.run(
        "CREATE TABLE logs (event bigint REFERENCES events ON DELETE CASCADE, line int)"
        " PARTITION BY LIST (event);"
        "CREATE TABLE logs_35 PARTITION OF logs FOR VALUES IN (35);"
        "CREATE TABLE logs_others PARTITION OF logs DEFAULT;"
        "CREATE INDEX ON logs (event);"
        "INSERT INTO logs SELECT 1, n FROM generate_series(1, 1000) n;"
        "INSERT INTO logs SELECT 35, n FROM generate_series(1, 30000) n;"
        "ANALYZE"
    )

    result = run(policy_on(events), around, walker=walker)

    assert events.one("SELECT count(*) FROM logs WHERE event = 1") == 1_000
    assert result.details == {"expired": 11, "logs": 30_000}


def test_rows_that_only_inherit_from_a_child_table_stay(
    events: Database, around: Surroundings
) -> None:
    """A foreign key covers the table it was declared on, not those that inherit from it."""
    fill(events, 40)
    events.run(LOGS)
    events.run("CREATE TABLE old_logs () INHERITS (logs); CREATE INDEX ON old_logs (event)")
    events.run("INSERT INTO logs VALUES (35, 1); INSERT INTO old_logs VALUES (35, 2)")

    run(policy_on(events), around)

    assert events.column("SELECT line FROM logs") == [2]


@BOTH_WALKERS
def test_a_child_without_cascade_keeps_its_row_and_the_run_says_so(
    events: Database, around: Surroundings, walker: str
) -> None:
    fill(events, 40)
    events.run("CREATE TABLE bills (event bigint REFERENCES events); CREATE INDEX ON bills (event)")
    events.run("INSERT INTO bills VALUES (35), (NULL)")

    result = run(policy_on(events), around, walker=walker)

    assert events.column("SELECT id FROM events WHERE id >= 30") == [35]
    assert (result.total, result.success) == (10, True)
    assert any("bills" in warning for warning in result.warnings)


@pytest.mark.parametrize(("action", "expected"), [("SET NULL", None), ("SET DEFAULT", 1)])
def test_a_child_that_forgets_its_row_is_updated_and_the_run_says_so(
    events: Database, around: Surroundings, action: str, expected: int | None
) -> None:
    fill(events, 40)
    events.run(f"CREATE TABLE notes (event bigint DEFAULT 1 REFERENCES events ON DELETE {action})")
    events.run("CREATE INDEX ON notes (event); INSERT INTO notes VALUES (35)")

    result = run(policy_on(events), around)

    assert events.column("SELECT event FROM notes") == [expected]
    assert (result.total, len(result.warnings)) == (11, 2)  # the other: never analyzed


@BOTH_WALKERS
@pytest.mark.parametrize("action", ["NO ACTION", "CASCADE"])
def test_in_a_tree_leaves_go_first_and_a_young_row_keeps_its_ancestors(
    database: Database, around: Surroundings, walker: str, action: str
) -> None:
    """10 <- 40 <- 50 by age; and 60 <- 70, all of it expired."""
    database.run(
        "CREATE TABLE events (id int PRIMARY KEY, created_at timestamptz DEFAULT now(),"
        f" parent int REFERENCES events ON DELETE {action});"
        "CREATE INDEX ON events (parent); CREATE INDEX ON events (created_at);"
        "INSERT INTO events (id, parent) VALUES (50, NULL), (40, 50), (10, 40), (70, NULL), (60, 70);"
        "UPDATE events SET created_at = now() - id * interval '1 day'"
    )
    policy = policy_on(database)

    for _ in range(2):
        run(policy, around, walker=walker)

    assert database.column("SELECT id FROM events ORDER BY id") == [10, 40, 50]


def test_a_row_that_refers_to_itself_goes(database: Database, around: Surroundings) -> None:
    database.run(
        "CREATE TABLE events (id int PRIMARY KEY, created_at timestamptz, root int REFERENCES events);"
        "CREATE INDEX ON events (root);"
        "INSERT INTO events VALUES (1, now() - interval '1 year', 1), (2, now(), 2)"
    )

    run(policy_on(database), around)

    assert database.column("SELECT id FROM events") == [2]


@BOTH_WALKERS
def test_a_row_stays_while_another_table_holds_a_row_about_it(
    events: Database, around: Surroundings, walker: str
) -> None:
    fill(events, 40)
    events.run("CREATE TABLE holds (event bigint, active boolean, since timestamptz)")
    events.run(
        "INSERT INTO holds VALUES (31, true, now() - interval '1 year'),"
        "(32, false, now() - interval '59 minutes'), (33, false, now() - interval '61 minutes'),"
        "(34, false, NULL), (35, NULL, now() - interval '1 year')"
    )
    kept = KeptBy(
        table="holds",
        column="event",
        refers_to="id",
        while_any=(
            Equals(column="active", values=(True,)),
            YoungerThan(column="since", keep_for=timedelta(hours=1)),
        ),
    )

    result = run(policy_on(events, kept_by=(kept,)), around, walker=walker)

    assert events.column("SELECT id FROM events WHERE id >= 30 ORDER BY id") == [31, 32]
    assert result.success


def test_an_optional_keeper_that_is_not_there_keeps_nothing(
    events: Database, around: Surroundings
) -> None:
    fill(events, 40)
    kept = KeptBy(table="holds", column="event", refers_to="id", optional=True)

    assert run(policy_on(events, kept_by=(kept,)), around).total == 11


@BOTH_WALKERS
def test_a_partition_counts_the_children_that_refer_to_its_parent(
    database: Database, around: Surroundings, walker: str
) -> None:
    """A key to a partitioned table holds for each partition, which is what a policy names."""
    database.run(
        "CREATE TABLE events (id int, created_at timestamptz, PRIMARY KEY (id, created_at))"
        " PARTITION BY RANGE (created_at);"
        "CREATE TABLE events_old PARTITION OF events FOR VALUES FROM (MINVALUE) TO (MAXVALUE);"
        "CREATE INDEX ON events (created_at);"
        "CREATE TABLE logs (event int, at timestamptz,"
        " FOREIGN KEY (event, at) REFERENCES events ON DELETE CASCADE);"
        "CREATE INDEX ON logs (event, at);"
        "INSERT INTO events SELECT i, now() - i * interval '1 day' FROM generate_series(1, 40) i;"
        "INSERT INTO logs SELECT id, created_at FROM events"
    )

    result = run(policy_on(database, TableName("events_old")), around, walker=walker)

    assert (database.count("events"), database.count("logs")) == (29, 29)
    assert result.details == {"expired": 11, "logs": 11}


def test_a_limit_counts_rows_not_their_children(events: Database, around: Surroundings) -> None:
    fill(events, 100)
    events.run(LOGS)
    events.run("INSERT INTO logs SELECT id, n FROM events, generate_series(1, 5) n")
    policy = policy_on(events, pace=replace(SMALL_WINDOWS, row_budget=10))

    result = run(policy, around)

    assert (result.total, result.details["logs"]) == (10, 50)
