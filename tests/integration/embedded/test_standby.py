"""A standby of our own streams, stands still when told to, and catches up."""

from collections.abc import Iterator
from contextlib import closing

import psycopg2
import pytest

from embedded.installations import installations
from embedded.postgresql import PostgresServer
from embedded.standby import StandbyServer
from tests.conditions import stays_true, wait_until

_STREAMING = "SELECT string_agg(application_name, ',') FROM pg_stat_replication"
_SLOT_USED = "SELECT active FROM pg_replication_slots"


@pytest.fixture(params=installations(), ids=lambda each: each.name)
def primary(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    with PostgresServer(request.param) as server:
        yield server


def ask(url: str, query: str) -> object:
    with closing(psycopg2.connect(url)) as session:
        session.autocommit = True
        with session.cursor() as cursor:
            cursor.execute(query)
            row = cursor.fetchone() if cursor.description else None
    return None if row is None else row[0]


def test_a_standby_follows_its_primary_unless_it_is_paused(primary: PostgresServer) -> None:
    with StandbyServer(primary, "it's a report", slot="reports") as standby:
        there = lambda: ask(standby.url(), "SELECT to_regclass('kept') IS NOT NULL")  # noqa: E731
        # A standby answers queries before it streams, and is listed before it has taken its slot.
        wait_until(lambda: ask(primary.url(), _STREAMING) == "it's a report", within_seconds=10)
        wait_until(lambda: ask(primary.url(), _SLOT_USED) is True, within_seconds=10)

        standby.pause_replay()
        ask(primary.url(), "CREATE TABLE kept ()")
        assert stays_true(lambda: not there(), 0.5)
        standby.resume_replay()

        wait_until(there, within_seconds=10)
