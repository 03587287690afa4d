"""The model of a fresh B-tree against the server's own, and against pgstattuple's measure."""

from datetime import timedelta

import pytest

from housekeeping.policies.pace import Pace
from housekeeping.stores.postgres.connection import connected, guarded
from housekeeping.stores.postgres.upkeep.density import measured_bloat, measuring_schema
from housekeeping.stores.postgres.upkeep.indexes import IndexState, indexes_of
from housekeeping.stores.postgres.upkeep.stepping import Stepping
from tests.integration.database import Database

NEAR = 0.15
FILL = """
    CREATE TABLE t (id bigint PRIMARY KEY, token uuid, word text, state int, ended timestamptz, m text)
        WITH (autovacuum_enabled = false);
    INSERT INTO t SELECT i, md5(i::text)::uuid, 'some value ' || i % 1000, i % 5,
        CASE WHEN i % 3 = 0 THEN now() + i * interval '1 s' END, md5(i::text)
        FROM generate_series(1, 100000) i;
    CREATE INDEX t_uuid ON t (token); CREATE INDEX t_words ON t (word); CREATE INDEX t_few ON t (state);
    CREATE INDEX t_nulls ON t (ended); CREATE INDEX t_text ON t (m);
    CREATE INDEX t_lower ON t (lower(m));
    CREATE INDEX t_partial ON t (ended) WHERE ended IS NOT NULL;
    CREATE INDEX t_include ON t (id) INCLUDE (word); CREATE INDEX t_two ON t (m, word);
    CREATE INDEX t_full ON t (m) WITH (fillfactor = 100);
    CREATE INDEX t_single ON t (state) WITH (deduplicate_items = off);
"""


@pytest.fixture
def table(database: Database) -> Database:
    database.run(FILL)
    database.run("VACUUM ANALYZE t")
    if database.version < 18:
        database.run("CREATE EXTENSION pgstattuple")
    return database


def indexes(database: Database) -> tuple[IndexState, ...]:
    (oid,) = database.column("SELECT 't'::regclass::oid")
    with (
        connected(database.url, "test") as connection,
        guarded(connection, Pace(), reading=True, any_plan=True),
    ):
        return indexes_of(connection, [oid])


def test_a_fresh_index_is_as_large_as_the_model_says(table: Database) -> None:
    found = indexes(table)

    assert len(found) == 12
    wrong = {
        index.name: (index.fresh_bytes(), index.bytes)
        for index in found
        if abs((index.fresh_bytes() or 0) / index.bytes - 1) > NEAR
    }
    assert wrong == {}


def test_bloat_is_estimated_as_it_is_measured(table: Database) -> None:
    table.run("DELETE FROM t WHERE id % 4 <> 0")
    table.run("VACUUM (INDEX_CLEANUP ON, ANALYZE) t")
    stepping = Stepping(url=table.url, application="test", patience=timedelta(seconds=5))

    with connected(table.url, "test") as connection, connection.begin():
        schema = measuring_schema(connection)
    assert (schema is None) == (table.version >= 18)
    for index in indexes(table):
        estimated = index.bloat_share()
        assert estimated is not None
        if schema is not None:
            measured = measured_bloat(stepping, schema, index)
            assert measured == pytest.approx(estimated, abs=NEAR), index.name
        elif index.name != "t_nulls":
            assert estimated > 0.5, index.name


def test_what_the_statistics_do_not_tell_is_not_guessed(table: Database) -> None:
    table.run("CREATE INDEX t_words_in ON t USING gin (to_tsvector('simple', word))")
    table.run("CREATE TABLE u (id int PRIMARY KEY)")
    table.run("INSERT INTO u SELECT generate_series(1, 1000)")

    (gin,) = [index for index in indexes(table) if index.name == "t_words_in"]
    assert (gin.fresh_bytes(), gin.bloat_share()) == (None, None)
