"""Rows that refuse to go are isolated, recorded and passed."""

import pytest

from housekeeping.engine.purging import MOST_REFUSING_ROWS
from housekeeping.engine.run import Surroundings
from housekeeping.policies.result import StopReason
from tests.integration.database import Database
from tests.integration.runs import policy_on, run

BOTH_WALKERS = pytest.mark.parametrize("walker", ["heap", "index"])


def fill(database: Database, days: int, poisoned: str) -> None:
    """Fill `events`; a trigger refuses to let the rows go that meet `poisoned`."""
    database.run(
        "INSERT INTO events SELECT i, now() - i * interval '1 day' FROM generate_series(1, %s) i",
        days,
    )
    database.run(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION 'seed row is protected'; END $$;"
        "CREATE TRIGGER guard BEFORE DELETE ON events FOR EACH ROW"
        f" WHEN ({poisoned}) EXECUTE FUNCTION refuse()"
    )


@BOTH_WALKERS
@pytest.mark.parametrize(
    "poisoned", [[40], [30, 400, 1000], [500, 501]], ids=["one", "many", "two"]
)
def test_a_row_that_a_trigger_protects_is_passed_and_all_others_go(
    events: Database, around: Surroundings, walker: str, poisoned: list[int]
) -> None:
    fill(events, 1_000, f"OLD.id IN ({', '.join(map(str, poisoned))})")

    result = run(policy_on(events), around, walker=walker)

    assert events.column("SELECT id FROM events WHERE id >= 30 ORDER BY id") == poisoned
    assert (result.stop_reason, result.total) == (StopReason.EXHAUSTED, 971 - len(poisoned))
    assert (result.success, result.exit_code) == (False, 2)
    assert result.left_behind == len(poisoned)
    recorded = events.rows("SELECT error, rows FROM housekeeping.run_window WHERE left_behind > 0")
    assert recorded == [("seed row is protected", 0)] * len(poisoned)


def test_a_poisoned_row_among_many_of_one_age_is_found_too(
    events: Database, around: Surroundings
) -> None:
    fill(events, 1, "OLD.id = 700")
    events.run(
        "INSERT INTO events SELECT i, now() - interval '60 days' FROM generate_series(2, 1000) i"
    )

    result = run(policy_on(events), around, walker="index")

    assert events.column("SELECT id FROM events ORDER BY id") == [1, 700]
    assert (result.total, result.left_behind) == (998, 1)


@BOTH_WALKERS
def test_more_refusing_rows_than_a_few_end_the_run_with_the_servers_word(
    events: Database, around: Surroundings, walker: str
) -> None:
    fill(events, 1_000, "OLD.id % 2 = 0")

    result = run(policy_on(events), around, walker=walker)

    assert (result.stop_reason, result.exit_code) == (StopReason.ERROR, 1)
    assert result.error is not None
    assert "seed row is protected" in result.error
    assert result.left_behind == MOST_REFUSING_ROWS + 1
    assert result.total == events.one("SELECT sum(rows) FROM housekeeping.run_window")


def test_a_row_a_trigger_silently_keeps_is_no_success(
    events: Database, around: Surroundings
) -> None:
    events.run(
        "INSERT INTO events SELECT i, now() - interval '60 days' FROM generate_series(1, 9) i"
    )
    events.run(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
        "CREATE TRIGGER guard BEFORE DELETE ON events FOR EACH ROW WHEN (OLD.id = 5)"
        " EXECUTE FUNCTION keep()"
    )

    result = run(policy_on(events), around)

    assert (result.total, result.success) == (8, False)
