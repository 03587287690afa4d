"""What tests of a split run's ledger share."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection

from housekeeping.policies.purge import TableName
from housekeeping.stores.postgres.catalog import TableFacts, describe_table, find_table
from housekeeping.stores.postgres.connection import connect
from housekeeping.stores.postgres.fencing import become_writer
from housekeeping.stores.postgres.ledger_schema import ensure_ledger
from housekeeping.stores.postgres.split_ledger import (
    SplitLedger,
)
from tests.integration.database import Database
from tests.integration.stores.postgres.splitting import PACE, RUN, Connect, cut


@pytest.fixture
def connections(events: Database) -> Iterator[Connect]:
    made: list[Connection] = []

    def make() -> Connection:
        made.append(connect(events.url, "hk:test"))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def owner(connections: Connect) -> Connection:
    connection = connections()
    ensure_ledger(connection)
    return connection


@pytest.fixture
def facts(owner: Connection) -> TableFacts:
    with owner.begin():
        oid = find_table(owner, TableName("events"))
        assert oid is not None
        return describe_table(owner, oid)


@pytest.fixture
def split(owner: Connection, facts: TableFacts) -> SplitLedger:
    """A run cut into four ranges of ten blocks."""
    writer = become_writer(owner, facts, RUN, PACE)
    ledger = SplitLedger(RUN, facts.label, writer.ledger.fence)
    assert cut(owner, facts, ledger)
    return ledger
