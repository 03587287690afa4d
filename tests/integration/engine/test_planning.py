"""Which way a table is walked, and that no statement reads more than its window."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from housekeeping.engine.planning import HeapPlan, Plan, Planner
from housekeeping.policies.archive import ArchiveTo
from housekeeping.policies.purge import Age, PurgePolicy
from housekeeping.stores.postgres.connection import connected, guarded
from housekeeping.stores.postgres.cutoffs import cutoffs_at, database_now
from housekeeping.stores.postgres.deletion import Deletion
from housekeeping.stores.postgres.moving import Destinations, Move
from housekeeping.stores.postgres.periods import Period
from housekeeping.stores.postgres.predicate import Predicate
from housekeeping.stores.postgres.preflight import Target, resolve
from housekeeping.stores.postgres.probes import KeyProbe
from housekeeping.stores.postgres.ranges import HeapRange, KeyRange, Range
from housekeeping.stores.postgres.statement import Statement
from tests.integration.conftest import DatabaseFactory
from tests.integration.database import Database
from tests.integration.runs import per_status, policy_on

ROWS = 120_000
TABLE = (
    "CREATE TABLE events (id bigint PRIMARY KEY, created_at timestamptz, status text, note text)"
    " WITH (autovacuum_enabled = off);"
    "INSERT INTO events SELECT i, now() - (%s - i) * interval '%s s', (ARRAY['done','failed'])[1+i%%2],"
    f" repeat('x', 60) FROM generate_series(1, {ROWS}) i;"
)


def table(seconds_apart: float, *more: str) -> str:
    """Return a table whose youngest row is of now, and so many seconds between two rows."""
    filled = TABLE % (ROWS, seconds_apart)
    return filled + ";".join(more) + ";"


ONE_PERCENT_EXPIRED = 21.8  # 120,000 rows in 30.3 days
HALF_EXPIRED = 43.2
INDEXED = "CREATE INDEX events_age ON events (created_at)"
BY_STATUS = "CREATE INDEX events_status ON events (status, created_at DESC) INCLUDE (id)"


def planned(database: Database, policy: PurgePolicy) -> tuple[Plan, Target]:
    with (
        connected(database.url, "hk:test") as connection,
        guarded(connection, policy.pace, reading=True, any_plan=True),
    ):
        now = database_now(connection)
        target = resolve(connection, policy)
        return Planner(connection, target, now, cutoffs_at(policy, now)).plan(), target


def ready(new_database: DatabaseFactory, schema: str) -> Database:
    database = new_database(schema)
    database.run("VACUUM ANALYZE")
    return database


def nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for below in node.get("Plans", []):
        yield from nodes(below)


def explained(database: Database, statement: Statement, values: dict[str, Any]) -> list[str]:
    """Return what the server would do, as a run's window would ask it: `Node Type on Relation`."""
    with connected(database.url, "hk:test") as connection:
        text = statement.text(connection)
    with database.session() as session, session.cursor() as cursor:
        cursor.execute("SET enable_seqscan = off")
        cursor.execute(f"EXPLAIN (FORMAT JSON) {text}", values)
        row = cursor.fetchone()
        assert row is not None
        found = row[0] if isinstance(row[0], list) else json.loads(row[0])
        return [
            f"{node['Node Type']} on {node['Relation Name']}"
            for node in nodes(found[0]["Plan"])
            if "Relation Name" in node and node["Node Type"] != "ModifyTable"
        ]


def deletion(target: Target, window: Range, predicate: Predicate) -> Deletion:
    return Deletion(target.facts, target.children, window, predicate)


def test_a_small_table_is_read_whole(events: Database) -> None:
    found, _ = planned(events, policy_on(events))

    assert [walk.name for walk in found.walks] == ["heap"]
    assert "blocks" in found.reason


@pytest.mark.parametrize(
    ("apart", "index", "walks"),
    [
        (ONE_PERCENT_EXPIRED, INDEXED, ["index"]),
        (HALF_EXPIRED, INDEXED, ["heap"]),
        (ONE_PERCENT_EXPIRED, "SELECT 1", ["heap"]),
        (ONE_PERCENT_EXPIRED, "CREATE INDEX ON events (created_at) WHERE id > 5", ["heap"]),
        (ONE_PERCENT_EXPIRED, "CREATE INDEX ON events USING brin (created_at)", ["heap"]),
    ],
    ids=["few", "many", "no index", "partial index", "no order"],
)
def test_few_expired_rows_are_found_by_an_index_and_many_by_the_heap(
    new_database: DatabaseFactory, apart: float, index: str, walks: list[str]
) -> None:
    database = ready(new_database, table(apart, index))

    found, _ = planned(database, policy_on(database))

    assert [walk.name for walk in found.walks] == walks
    assert found.estimate == pytest.approx(
        ROWS * (0.01 if apart < 30 else 0.5), rel=0.5 if apart < 30 else 0.1
    )


def test_an_index_that_leads_with_the_status_serves_each_status_apart(
    new_database: DatabaseFactory,
) -> None:
    database = ready(new_database, table(ONE_PERCENT_EXPIRED, BY_STATUS))

    found, _ = planned(database, policy_on(database, rules=per_status(done=30, failed=30)))

    assert [walk.name for walk in found.walks] == ["index:done", "index:failed"]


def test_an_index_on_what_is_never_later_than_the_age_serves_it(
    new_database: DatabaseFactory,
) -> None:
    late = "ALTER TABLE events ADD ended_at timestamptz"
    database = ready(new_database, table(ONE_PERCENT_EXPIRED, INDEXED, late))
    age = Age(columns=("ended_at", "created_at"), never_before="created_at")

    found, _ = planned(database, policy_on(database, age=age))

    assert [walk.name for walk in found.walks] == ["index"]


@pytest.mark.parametrize("index", [INDEXED, BY_STATUS, "SELECT 1"])
def test_a_heap_window_reads_only_its_blocks(new_database: DatabaseFactory, index: str) -> None:
    database = ready(new_database, table(HALF_EXPIRED, index))
    found, target = planned(database, policy_on(database, rules=per_status(done=30, failed=30)))
    (walk,) = found.walks
    assert isinstance(walk, HeapPlan)

    for blocks in ((0, 1), (100, 200), (0, 1_000)):
        statements = deletion(target, HeapRange.blocks(*blocks), walk.predicate)
        for statement in (statements.direct(), statements.delete_pinned(), statements.count()):
            reads = set(explained(database, statement, dict(statements.values, limit=None)))
            assert reads <= {"Tid Range Scan on events", "Tid Scan on events"}


def test_a_glimpse_before_a_move_reads_only_three_blocks(new_database: DatabaseFactory) -> None:
    database = ready(new_database, table(HALF_EXPIRED, INDEXED))
    policy = policy_on(database, archive=ArchiveTo(prefix="kept"))
    found, target = planned(database, policy)
    (walk,) = found.walks
    assert isinstance(walk, HeapPlan)
    assert target.layout is not None
    january = Destinations(target.layout, (Period(2024 * 12),), target.age_type, uuid4())

    move = Move(target, HeapRange.blocks(0, 1_000), walk.predicate, january)

    glimpse = move.glimpse()
    assert glimpse is not None
    reads = explained(database, glimpse, dict(move.values))
    assert reads == ["Tid Range Scan on events"] * 3


@pytest.mark.parametrize("index", [INDEXED, BY_STATUS])
def test_an_index_window_and_its_probe_read_only_their_stretch(
    new_database: DatabaseFactory, index: str
) -> None:
    database = ready(new_database, table(ONE_PERCENT_EXPIRED, index))
    found, target = planned(database, policy_on(database, rules=per_status(done=30)))
    plan = found.served[0]
    lower, upper = database.rows(
        "SELECT min(created_at)::text, (min(created_at) + interval '1 hour')::text FROM events"
    )[0]

    for start in (None, lower):
        window = KeyRange(plan.probe.key, start, upper, upper_included=True, rows=100)
        statements = deletion(target, window, plan.predicate)
        reads = explained(database, statements.direct(), dict(statements.values))
        assert all("Index" in read or "Bitmap Heap" in read for read in reads), reads


def test_a_probe_asks_the_index_alone(new_database: DatabaseFactory) -> None:
    database = ready(new_database, table(ONE_PERCENT_EXPIRED, INDEXED))
    found, _ = planned(database, policy_on(database))
    probe: KeyProbe = found.served[0].probe

    with connected(database.url, "hk:test") as connection, connection.begin():
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        before = _read(database)
        found_range = probe.next_range(connection, None, 1_000)
        assert found_range is not None
        assert found_range.rows == 1_000
        assert not probe.tie_exceeds(connection, found_range.upper, 50_000)
    assert _read(database) == before


def _read(database: Database) -> int:
    """Return how often the table itself was scanned from its first block to the last."""
    return int(database.one("SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'events'"))


def test_children_are_found_by_their_index_however_few_the_parents(
    new_database: DatabaseFactory,
) -> None:
    child = (
        "CREATE TABLE logs (event bigint REFERENCES events ON DELETE CASCADE, line text);"
        "INSERT INTO logs SELECT id, 'x' FROM events;"
        "CREATE INDEX logs_event ON logs (event)"
    )
    database = ready(new_database, table(HALF_EXPIRED, INDEXED, child))
    found, target = planned(database, policy_on(database))
    statements = deletion(target, HeapRange.blocks(0, 10), found.walks[0].predicate)

    for statement in (
        statements.delete_pinned(),
        statements.count_children(target.children[0]),
        statements.drain(target.children[0]),
        statements.count_doomed_children(target.children[0]),
    ):
        values = dict(statements.values, limit=None, children=20_000)
        reads = explained(database, statement, values)
        assert "Seq Scan on logs" not in reads
        assert "Seq Scan on events" not in reads
        assert any("logs" in read for read in reads)
