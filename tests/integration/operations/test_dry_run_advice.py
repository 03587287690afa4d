"""Advice is given where it helps, can be pasted, and then does help."""

from typing import Any

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.policies.purge import Age, ExpiryRule, KeptBy, TableName
from tests.integration.database import Database
from tests.integration.dry_runs import plan_of
from tests.integration.runs import DAYS, SMALL_WINDOWS, per_status, policy_on, run

# 12 MB: large enough that an index is worth its price. A row a minute, a tenth of a percent failed;
# 30 days keep all but 600 of them.
_ROWS = 43_800
_FILL = """
    CREATE TABLE {table} ({id} bigint, {age} timestamptz, {status} text, note text);
    INSERT INTO {table}
    SELECT i, now() - i * interval '1 minute', CASE WHEN i %% 1000 = 0 THEN 'failed' ELSE 'done' END,
           repeat('x', 250)
    FROM generate_series(1, %s) i ORDER BY hashint4(i);
"""


def fill(database: Database, rows: int = _ROWS, **names: str) -> None:
    """Make a table whose heap lies in no order, without any index."""
    called = {"table": "events", "id": "id", "age": "created_at", "status": "status", **names}
    database.run(_FILL.format(**called), rows)
    database.run(f"VACUUM ANALYZE {called['table']}")


def lines(plan: dict[str, Any]) -> list[str]:
    return [one["sql"] for one in plan["advice"]]


def paste(database: Database, plan: dict[str, Any]) -> None:
    """Do what the advice says, as somebody would who copies its lines."""
    for line in lines(plan):
        database.run(line)
    database.run("ANALYZE")


def test_an_index_on_the_age_is_advised_and_taken_once_it_is_there(
    database: Database, around: Surroundings
) -> None:
    fill(database)
    policy = policy_on(database)

    before = plan_of(policy, around)
    paste(database, before)
    after = plan_of(policy, around)

    assert lines(before) == ['CREATE INDEX CONCURRENTLY ON "public"."events" ("created_at")']
    assert before["walks"] == ["heap"]
    assert (after["walks"], after["advice"]) == (["index"], [])
    assert after["would_delete"] == before["would_delete"] > 0
    assert after["cost"]["worked_seconds"] < before["cost"]["worked_seconds"]


def test_a_limit_is_not_taken_for_how_little_has_expired(
    database: Database, around: Surroundings
) -> None:
    fill(database)
    most = policy_on(database, rules=(ExpiryRule(reason="expired", keep_for=DAYS),))

    assert plan_of(most, around, limit=10)["advice"] == plan_of(most, around)["advice"] == []


def test_an_index_led_by_the_status_is_advised_for_ages_by_status(
    database: Database, around: Surroundings
) -> None:
    fill(database)
    policy = policy_on(database, rules=per_status(done=30, failed=30))

    before = plan_of(policy, around)
    paste(database, before)
    after = plan_of(policy, around)

    assert lines(before) == [
        'CREATE INDEX CONCURRENTLY ON "public"."events" ("status", "created_at")'
    ]
    assert (after["walks"], after["advice"]) == (["index:done", "index:failed"], [])
    assert after["details"] == before["details"]


def test_a_partial_index_is_advised_where_few_rows_have_the_statuses(
    database: Database, around: Surroundings
) -> None:
    fill(database)
    policy = policy_on(database, rules=per_status(failed=10))

    before = plan_of(policy, around)
    paste(database, before)
    after = plan_of(policy, around)

    assert lines(before) == [
        'CREATE INDEX CONCURRENTLY ON "public"."events" ("status", "created_at")'
        " WHERE \"status\" IN ('failed')"
    ]
    assert (after["walks"], after["advice"]) == (["index:failed"], [])
    assert after["would_delete"] == before["would_delete"] == run(policy, around).total > 0


def test_a_partial_index_is_advised_where_few_rows_meet_the_condition(
    database: Database, around: Surroundings
) -> None:
    fill(database)
    policy = policy_on(
        database,
        where="status <> 'done' AND NOT note = '5%'",
        rules=(ExpiryRule(reason="expired", keep_for=10 * DAYS),),
        pace=SMALL_WINDOWS,
    )

    before = plan_of(policy, around)
    paste(database, before)
    after = plan_of(policy, around)

    assert lines(before) == [
        'CREATE INDEX CONCURRENTLY ON "public"."events" ("created_at")'
        " WHERE (status <> 'done' AND NOT note = '5%')"
    ]
    assert (after["walks"], after["advice"]) == (["index"], [])
    assert after["would_delete"] == before["would_delete"]
    assert run(policy, around).total == before["would_delete"] > 0


def test_an_index_most_of_whose_entries_stay_is_told_to_be_narrowed(
    database: Database, around: Surroundings
) -> None:
    fill(database, 200_000)
    database.run("CREATE INDEX old_one ON events (created_at)")
    policy = policy_on(database, rules=per_status(failed=1))

    before = plan_of(policy, around, walker="index")
    paste(database, before)
    after = plan_of(policy, around)

    assert "old_one" in before["advice"][0]["because"]
    assert before["advice"][0]["sql"].endswith("WHERE \"status\" IN ('failed')")
    assert (after["walks"], after["advice"]) == (["index:failed"], [])
    assert after["would_delete"] == before["would_delete"] > 0


def test_a_condition_no_index_could_have_is_left_out_of_the_advice(
    database: Database, around: Surroundings
) -> None:
    fill(database)
    policy = policy_on(database, where="created_at < now() - interval '1 day' AND status <> 'done'")

    plan = plan_of(policy, around)
    paste(database, plan)

    assert lines(plan) == ['CREATE INDEX CONCURRENTLY ON "public"."events" ("created_at")']


def test_an_age_of_several_columns_gets_an_index_on_their_expression(
    database: Database, around: Surroundings
) -> None:
    fill(database)
    database.run("ALTER TABLE events ADD ended_at timestamptz")
    policy = policy_on(database, age=Age(columns=("ended_at", "created_at")))

    before = plan_of(policy, around)
    paste(database, before)
    after = plan_of(policy, around)

    assert lines(before) == [
        'CREATE INDEX CONCURRENTLY ON "public"."events" ((coalesce("ended_at", "created_at")))'
    ]
    assert after["walks"] == ["index"]


@pytest.mark.parametrize("age", ["created_at + interval '1 day'", "date_trunc('day', created_at)"])
def test_an_age_no_index_may_be_on_gets_no_advice(
    database: Database, around: Surroundings, age: str
) -> None:
    fill(database)

    assert plan_of(policy_on(database, age=Age(expression=age)), around)["advice"] == []


def test_names_and_values_of_any_kind_can_be_pasted(
    database: Database, around: Surroundings
) -> None:
    table, age, status = 'o"dd; DROP.tab%le', "cre'ated \\ at", 'Sta"tus'
    quote = {name: '"' + name.replace('"', '""') + '"' for name in (table, age, status)}
    database.run('CREATE SCHEMA "we.ird ""schema"')
    where = '"we.ird ""schema".' + quote[table]
    database.run(
        f"CREATE TABLE {where} (id bigint, {quote[age]} timestamptz, {quote[status]} text, note text)"
    )
    database.run(
        f"INSERT INTO {where} SELECT i, now() - i * interval '1 minute',".replace("%", "%%")
        + " CASE WHEN i %% 1000 = 0 THEN %s ELSE 'done' END, repeat('x', 250)"
        " FROM generate_series(1, %s) i ORDER BY hashint4(i)",
        "it's \\ 5%",
        _ROWS,
    )
    database.run("VACUUM ANALYZE")
    (rule,) = per_status(column=status, failed=10)
    policy = policy_on(
        database,
        TableName(table, 'we.ird "schema'),
        age=Age(columns=(age,)),
        rules=(type(rule)(**{**vars(rule), "value": "it's \\ 5%"}),),
    )

    before = plan_of(policy, around)
    paste(database, before)
    after = plan_of(policy, around)

    assert len(before["advice"]) == 1
    assert (after["walks"], after["advice"]) == (["index:failed"], [])
    assert after["would_delete"] == before["would_delete"] > 0


def test_a_keeper_read_whole_for_every_window_is_warned_of_until_it_has_its_index(
    database: Database, around: Surroundings
) -> None:
    fill(database)
    database.run("CREATE INDEX ON events (created_at)")
    database.run(
        "CREATE TABLE holds (event bigint, note text);"
        "INSERT INTO holds SELECT i, repeat('x', 250) FROM generate_series(1, 50000) i"
    )
    database.run("VACUUM ANALYZE")
    policy = policy_on(database, kept_by=(KeptBy(table="holds", column="event", refers_to="id"),))

    before = run(policy, around, dry_run=True)
    assert before.plan is not None
    paste(database, dict(before.plan))
    after = run(policy, around, dry_run=True)

    assert after.plan is not None
    assert lines(dict(before.plan)) == ['CREATE INDEX CONCURRENTLY ON "public"."holds" ("event")']
    assert any("public.holds" in warning for warning in before.warnings)
    assert before.plan["statements"][0]["reads_whole"] == ["public.holds"]
    assert (after.plan["advice"], after.warnings) == ([], ())


def test_a_table_never_analyzed_is_advised_to_be_and_nothing_else(
    database: Database, around: Surroundings
) -> None:
    fill(database)
    database.run("CREATE TABLE fresh WITH (autovacuum_enabled = off) AS SELECT * FROM events")

    plan = plan_of(policy_on(database, "fresh"), around)

    assert lines(plan) == ['ANALYZE "public"."fresh"']


def test_a_small_table_gets_no_advice(database: Database, around: Surroundings) -> None:
    fill(database, 5_000)

    assert plan_of(policy_on(database), around)["advice"] == []


def test_a_table_most_of_which_expired_gets_no_advice(
    database: Database, around: Surroundings
) -> None:
    fill(database)
    soon = per_status(done=1, failed=1)

    assert plan_of(policy_on(database, rules=soon), around)["advice"] == []
