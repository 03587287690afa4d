"""What `check` makes of a policy that would run, and should be looked at first."""

from dataclasses import replace
from datetime import timedelta

import pytest

from housekeeping.operations.inspection import inspect_purge, ledger_told
from housekeeping.policies.allowance import Allowance
from housekeeping.policies.errors import HoldUnusable, LedgerRefused
from housekeeping.policies.hold import Hold
from housekeeping.policies.purge import Age, ExpiryRule, KeepNewest, TableName
from tests.integration.database import Database
from tests.integration.runs import policy_on


def fill(database: Database, expired: int, kept: int) -> None:
    database.run(
        "INSERT INTO events SELECT i, now() + i * interval '1 second' - CASE WHEN i <= %s"
        " THEN interval '60 days' ELSE interval '2 days' END FROM generate_series(1, %s) i",
        expired,
        expired + kept,
    )
    database.run("ANALYZE events")


@pytest.mark.parametrize(("expired", "kept", "warned"), [(18_500, 1_500, 1), (17_500, 2_500, 0)])
def test_a_run_that_takes_nearly_all_of_a_large_table_is_told_of(
    events: Database, expired: int, kept: int, warned: int
) -> None:
    fill(events, expired, kept)

    told = [w for w in inspect_purge(policy_on(events)).warnings if "more than 90%" in w]

    assert len(told) == warned


def test_neither_a_small_table_nor_one_with_a_limit_nor_kept_rows_are_told_of(
    events: Database,
) -> None:
    fill(events, 9_900, 0)
    assert not inspect_purge(policy_on(events)).warnings
    events.run("TRUNCATE events")
    fill(events, 20_000, 0)

    assert not inspect_purge(policy_on(events, allowance=Allowance(share=1.0))).warnings
    assert not inspect_purge(policy_on(events, keep_newest=KeepNewest(rows=9_000))).warnings
    assert inspect_purge(policy_on(events)).warnings


def test_seconds_taken_for_milliseconds_are_told_of(database: Database) -> None:
    database.run(
        "CREATE TABLE events (id int PRIMARY KEY, at bigint);"
        "INSERT INTO events SELECT i, extract(epoch FROM now() - i * interval '1 minute')"
        " FROM generate_series(1, 20000) i; ANALYZE events"
    )

    def warnings(unit: str) -> tuple[str, ...]:
        return inspect_purge(policy_on(database, age=Age(columns=("at",), unit=unit))).warnings  # type: ignore[arg-type]

    assert any("age_unit" in told for told in warnings("ms"))
    assert not warnings("s")


def test_a_limit_a_run_would_stop_at_is_told_of(events: Database) -> None:
    fill(events, 2_001, 7_999)

    (told,) = inspect_purge(policy_on(events, allowance=Allowance(share=0.2))).warnings

    assert told.startswith("a run would stop: public.events: ")


def test_ages_under_an_hour_are_told_of(events: Database) -> None:
    fill(events, 1, 1)
    rules = (
        ExpiryRule(reason="brief", keep_for=timedelta(seconds=30)),
        ExpiryRule(reason="long", keep_for=timedelta(hours=1)),
    )

    (told,) = inspect_purge(policy_on(events, rules=rules)).warnings

    assert "(brief) 30 seconds" in told
    assert 'write days as "30d"' in told
    doubt = 'keep_for = 30 means 30 seconds; write "30d" for days'
    doubted = policy_on(events, rules=rules, doubts=(doubt,))
    assert inspect_purge(doubted).warnings == (doubt,)


def test_holds_in_force_are_told_and_one_that_can_not_be_is_refused(events: Database) -> None:
    fill(events, 1, 1)
    hold = Hold(name="suit", table=TableName("events"), where="id = 1", reason="case 42")

    told = inspect_purge(policy_on(events, holds=(hold,))).told
    assert "hold suit on public.events: case 42" in told
    wrong = policy_on(events, holds=(replace(hold, table=TableName("evnts")),))
    with pytest.raises(HoldUnusable):
        inspect_purge(wrong)


def test_a_ledger_we_may_not_write_to_is_not_called_ready(events: Database) -> None:
    ledger_told(events.url, make=True)
    events.run("DROP ROLE IF EXISTS onlooker; CREATE ROLE onlooker LOGIN")
    events.run("GRANT pg_read_all_data TO onlooker")
    try:
        with pytest.raises(LedgerRefused, match=r"can't be written to: onlooker lacks") as refused:
            ledger_told(events.url.replace("postgres@", "onlooker@", 1), make=False)
        assert "GRANT USAGE ON SCHEMA housekeeping TO" in refused.value.message
    finally:
        events.run("DROP OWNED BY onlooker; DROP ROLE onlooker")
