"""Connecting to a database: it answers, or we say so in time."""

import socket
from collections.abc import Iterator

import pytest
from psycopg2 import extensions

from housekeeping.policies.errors import StoreUnreachable
from housekeeping.stores.postgres import interruption
from housekeeping.stores.postgres.connection import connect
from tests.integration.database import Database


@pytest.fixture
def interruptible(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(interruption, "_CONNECTED_WITHIN_S", 0.5)
    interruption.install()
    yield
    extensions.set_wait_callback(None)


def test_a_server_that_accepts_and_says_nothing_is_given_up(interruptible: None) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(1)
        url = f"postgresql://hk@127.0.0.1:{silent.getsockname()[1]}/jobs"

        with pytest.raises(StoreUnreachable, match="timeout expired"):
            connect(url, "hk:test")


def test_each_statement_has_a_view_of_its_own_whatever_the_database_s_default(
    database: Database,
) -> None:
    name = database.one("SELECT current_database()")
    database.run(f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'")

    with connect(database.url, "hk:test") as connection, connection.begin():
        shown = connection.exec_driver_sql("SHOW transaction_isolation").scalar_one()

    assert shown == "read committed"
