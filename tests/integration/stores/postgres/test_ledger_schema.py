"""The ledger makes itself, once, or says who has to."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.operations.inspection import ledger_told
from housekeeping.policies.errors import LedgerRefused, PolicyRefused, RunInterrupted
from housekeeping.stores.postgres import ledger_schema
from housekeeping.stores.postgres.connection import connected
from housekeeping.stores.postgres.ledger_migrations import MIGRATIONS
from housekeeping.stores.postgres.ledger_schema import ensure_ledger, ledger_missing
from tests.integration.database import Database
from tests.integration.runs import policy_on, run

ROLE = "ledger_reader"

VERSIONS = list(range(1, len(MIGRATIONS) + 1))


@pytest.fixture
def cleaner(events: Database) -> Database:
    """The database as a role sees it that may purge `events`, but not make a schema."""
    events.run(
        f"DO $$ BEGIN CREATE ROLE {ROLE} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;"
        f"GRANT SELECT, UPDATE, DELETE ON events TO {ROLE}"
    )
    return Database(events.url.replace("postgres@", f"{ROLE}@"), events.version)


def ensure(database: Database) -> None:
    with connected(database.url, "hk:test") as connection:
        ensure_ledger(connection)


def test_it_is_made_on_first_use_and_left_alone_afterwards(events: Database) -> None:
    with connected(events.url, "hk:test") as connection:
        with connection.begin():
            assert ledger_missing(connection)
        ensure_ledger(connection)
        with connection.begin():
            assert not ledger_missing(connection)
        ensure_ledger(connection)

    assert events.column("SELECT version FROM housekeeping.migration ORDER BY 1") == VERSIONS


def test_many_first_runs_at_once_make_it_once(events: Database) -> None:
    with ThreadPoolExecutor(8) as threads:
        for made in [threads.submit(ensure, events) for _ in range(8)]:
            made.result(20)

    assert events.column("SELECT version FROM housekeeping.migration ORDER BY 1") == VERSIONS


def test_a_role_that_may_not_make_a_schema_is_told_the_grant_it_needs(
    events: Database, cleaner: Database, around: Surroundings
) -> None:
    with pytest.raises(LedgerRefused) as refused:
        run(policy_on(cleaner), around)

    events.run(str(refused.value.facts["remedy"]).splitlines()[0])

    assert run(policy_on(cleaner), around).success


def test_a_role_that_may_not_write_to_the_ledger_is_told_the_grants_it_needs(
    events: Database, cleaner: Database, around: Surroundings
) -> None:
    ensure(events)
    with pytest.raises(LedgerRefused) as refused:
        run(policy_on(cleaner), around)

    events.run(str(refused.value.facts["remedy"]))

    assert run(policy_on(cleaner), around).success


def test_a_schema_a_dba_made_for_us_is_enough(
    events: Database, cleaner: Database, around: Surroundings
) -> None:
    events.run(f"CREATE SCHEMA housekeeping AUTHORIZATION {ROLE}")

    assert run(policy_on(cleaner), around).success


def test_a_schema_of_that_name_which_is_not_ours_is_refused_with_a_remedy(
    events: Database, cleaner: Database, around: Surroundings
) -> None:
    events.run("CREATE SCHEMA housekeeping")

    with pytest.raises(LedgerRefused):
        run(policy_on(cleaner), around)


def test_a_dry_run_needs_no_ledger(cleaner: Database, around: Surroundings) -> None:
    assert run(policy_on(cleaner), around, dry_run=True).success


def an_older_one(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(ledger_schema, "MIGRATIONS", MIGRATIONS[:6])
        ensure(database)


@pytest.mark.parametrize("more", ["", "GRANT CREATE ON SCHEMA housekeeping TO ledger_reader"])
def test_a_role_that_may_not_bring_an_older_one_up_to_date_is_told_who_may(
    events: Database,
    cleaner: Database,
    around: Surroundings,
    monkeypatch: pytest.MonkeyPatch,
    more: str,
) -> None:
    """It was told to get the privileges it had, or saw a bare `must be owner of table`."""
    an_older_one(events, monkeypatch)
    with pytest.raises(LedgerRefused) as refused:
        run(policy_on(cleaner), around)
    events.run(f"{refused.value.facts['remedy']}; {more}")

    for attempt in (
        lambda: run(policy_on(cleaner), around),
        lambda: ledger_told(cleaner.url, make=False),
    ):
        with pytest.raises(PolicyRefused, match="As their owner postgres") as outdated:
            attempt()
        assert "is of version 6" in outdated.value.message
    assert run(policy_on(cleaner), around, dry_run=True).success

    ensure(events)
    assert run(policy_on(cleaner), around).success


def test_an_open_session_that_has_read_an_older_one_is_not_waited_for_without_end(
    events: Database, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    an_older_one(events, monkeypatch)
    with events.session() as user, user.cursor() as cursor:
        cursor.execute("SELECT FROM housekeeping.detached_partition")
        with pytest.raises(RunInterrupted, match="lock timeout"):
            run(policy_on(events), around)
        user.rollback()

    assert run(policy_on(events), around).success
