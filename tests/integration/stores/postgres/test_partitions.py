"""What the catalog and the planner say of a partitioned table, and the steps on one partition."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.engine.pacing import Rest, SystemClock
from housekeeping.engine.purging import Tally
from housekeeping.engine.reporting import RunReport
from housekeeping.engine.run import Request
from housekeeping.engine.throttling import Throttle
from housekeeping.operations.partitions.steps import Steps
from housekeeping.policies.errors import LeaseTaken
from housekeeping.policies.events import EventStream
from housekeeping.policies.purge import PartitionCare
from housekeeping.policies.result import StopReason
from housekeeping.stores.postgres.catalog import describe_table, find_table
from housekeeping.stores.postgres.connection import connect, guarded
from housekeeping.stores.postgres.detached_ledger import want_detached
from housekeeping.stores.postgres.fencing import become_writer
from housekeeping.stores.postgres.hold_ledger import holds_now
from housekeeping.stores.postgres.ledger_schema import ensure_ledger
from housekeeping.stores.postgres.partition_bounds import leaves_reached, uppers
from housekeeping.stores.postgres.partitions import PartitionTree, partition_tree
from tests.integration.database import Database
from tests.integration.partitions import partitioned, states
from tests.integration.runs import BRISK, policy_on

NEW_YEAR = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    with closing(connect(database.url, "test")) as connection:
        yield connection


def tree_of(database: Database, connection: Connection, table: str = "events") -> PartitionTree:
    oid = database.one("SELECT %s::regclass::oid", table)
    with guarded(connection, BRISK, reading=True, any_plan=True):
        return partition_tree(connection, oid)


def names(tree: PartitionTree, oids: Any) -> set[str]:
    return {tree.nodes[oid].name for oid in oids}


def test_the_tree_has_every_level_and_locks_nothing(
    database: Database, connection: Connection
) -> None:
    database.run(
        "CREATE TABLE events (id int, at timestamptz) PARTITION BY LIST (id);"
        "CREATE TABLE one PARTITION OF events FOR VALUES IN (1) PARTITION BY RANGE (at);"
        "CREATE TABLE old PARTITION OF one FOR VALUES FROM (MINVALUE) TO ('2024-01-01');"
        "CREATE TABLE rest PARTITION OF one DEFAULT;"
        "CREATE TABLE other PARTITION OF events DEFAULT"
    )
    with database.session() as user, user.cursor() as cursor:
        cursor.execute("LOCK TABLE old, other IN ACCESS EXCLUSIVE MODE")
        tree = tree_of(database, connection)

    one = next(node for node in tree.nodes.values() if node.name == "one")
    assert (one.strategy, one.key, one.kind) == ("r", "at", "p")
    assert [leaf.name for leaf in tree.leaves()] == ["old", "rest", "other"]
    assert tree.default_of(one) == tree.leaves(one)[1]
    assert tree.root.default is False


@pytest.mark.parametrize(
    ("bounds", "shown", "expired"),
    [
        ("FROM (MINVALUE) TO ('2024-01-01+00')", "2024-01-01 00:00:00+00", True),
        ("FROM ('-infinity') TO ('2023-12-31 23:59:59.999999+00')", "2023-12-31 23:59:59.999999+00",
         True),
        ("FROM (MINVALUE) TO ('2024-01-01 00:00:00.000001+00')", "2024-01-01 00:00:00.000001+00",
         False),
        ("FROM (MINVALUE) TO ('infinity')", "infinity", False),
        ("FROM (MINVALUE) TO ('0044-03-15 12:00:00+00 BC')", "0044-03-15 12:00:00+00 BC", True),
        ("FROM (MINVALUE) TO (MAXVALUE)", None, None),
        ("FROM ('2024-01-01+02') TO ('2024-01-01 01:00+01')", "2024-01-01 00:00:00+00", True),
    ],
)  # fmt: skip
def test_the_server_reads_its_own_bounds(
    database: Database,
    connection: Connection,
    bounds: str,
    shown: str | None,
    expired: bool | None,  # noqa: FBT001
) -> None:
    database.run(
        "CREATE TABLE events (at timestamptz) PARTITION BY RANGE (at);"
        f"CREATE TABLE part PARTITION OF events FOR VALUES {bounds}"
    )
    tree = tree_of(database, connection)
    with guarded(connection, BRISK, reading=True, any_plan=True):
        found = uppers(connection, tree.leaves(), "timestamp(3) with time zone", NEW_YEAR)
        younger = leaves_reached(connection, tree, sql.Identifier("at"), ">=", NEW_YEAR)

    if shown is None:
        assert not found
    else:
        (end,) = found.values()
        assert (end.text, end.expired) == (shown, expired)
    assert (not younger) == bool(expired)


@pytest.mark.parametrize("far", [False, True], ids=["all here", "one on another server"])
def test_pruning_tells_which_leaves_may_hold_what(
    database: Database, connection: Connection, *, far: bool
) -> None:
    partitioned(database)
    database.run("CREATE TABLE rest PARTITION OF events DEFAULT")
    if far:
        database.run(
            "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;"
            "CREATE FOREIGN TABLE far PARTITION OF events"
            " FOR VALUES FROM ('2100-01-01') TO ('2101-01-01') SERVER s"
        )
    tree = tree_of(database, connection)
    cutoff = datetime.now(UTC) - timedelta(days=30)
    age = sql.Identifier("created_at")

    with guarded(connection, BRISK, reading=True, any_plan=True):
        older = names(tree, leaves_reached(connection, tree, age, "<", cutoff))
        younger = names(tree, leaves_reached(connection, tree, age, ">=", cutoff))

    elsewhere = {"far"} if far else set()
    assert older == {f"events_{k}" for k in range(3, 10)} | {"rest"} | elsewhere
    assert younger == {f"events_{k}" for k in range(4)} | {"rest"} | elsewhere


def steps_on(database: Database, connection: Connection, grace: timedelta) -> Steps:
    policy = policy_on(database, partitions=PartitionCare(grace=grace))
    request = Request(run_by="tester@here", run_id=uuid4())
    with guarded(connection, BRISK, reading=True, any_plan=True):
        oid = find_table(connection, policy.table)
        assert oid is not None
        facts = describe_table(connection, oid)
    ledger = become_writer(connection, facts, request.run_id, BRISK).ledger
    report = RunReport(policy, request, EventStream())
    clock = SystemClock()
    rest = Rest(1.0, clock, lambda: None)

    def never() -> StopReason | None:
        return None

    with connection.begin():
        known = holds_now(connection)
    return Steps(
        connection, policy, ledger, Tally(), report, clock, rest, Throttle(rest), never, known
    )


def test_nobody_but_the_run_that_holds_the_fence_detaches(
    database: Database, connection: Connection
) -> None:
    partitioned(database)
    ensure_ledger(connection)
    stale = steps_on(database, connection, timedelta(0))
    steps_on(database, connection, timedelta(0))  # a newer run
    tree = tree_of(database, connection)

    with pytest.raises(LeaseTaken), guarded(connection, BRISK, any_plan=True):
        want_detached(connection, stale.ledger, "plain", tree.root, tree.leaves()[0], "upper", 0, 0)

    assert states(database) == {}
