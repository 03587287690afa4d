"""A hypertable gives its chunks up through drop_chunks, one at a time, or not at all.

TimescaleDB can't be installed beside these servers, so a stand-in has its views and its function, with
the columns and the arguments they are documented to have: a chunk goes when it begins at `newer_than`
or later and ends at `older_than` or before, and all that do go, or none.
"""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.policies.errors import NotATable, PolicyRefused
from housekeeping.policies.purge import Age, ExpiryRule, PartitionCare
from tests.integration.database import Database
from tests.integration.runs import BRISK, per_status, policy_on, run

CHUNKS = 10  # of ten days each; the fourth holds the cutoff
_TIMESCALE = """
CREATE SCHEMA timescaledb_information; CREATE SCHEMA _timescaledb_internal;
CREATE TABLE timescaledb_information.dimensions (hypertable_schema name, hypertable_name name,
    dimension_number bigint, column_name name, column_type regtype, dimension_type text);
CREATE TABLE timescaledb_information.chunks (hypertable_schema name, hypertable_name name,
    chunk_schema name, chunk_name name, range_start timestamptz, range_end timestamptz,
    range_start_integer bigint, range_end_integer bigint);
CREATE FUNCTION drop_chunks(relation regclass, older_than {type} = NULL, newer_than {type} = NULL,
    "verbose" boolean = FALSE) RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE chunk record; BEGIN
  IF older_than IS NULL AND newer_than IS NULL THEN
    RAISE 'invalid time range for dropping chunks';
  END IF;
  IF older_than < newer_than THEN RAISE 'older_than must be more recent than newer_than'; END IF;
  FOR chunk IN DELETE FROM timescaledb_information.chunks c
      WHERE format('%I.%I', c.hypertable_schema, c.hypertable_name)::regclass = relation
        AND (older_than IS NULL OR c.{end} <= older_than)
        AND (newer_than IS NULL OR c.{start} >= newer_than) RETURNING * LOOP
    EXECUTE format('DROP TABLE %I.%I', chunk.chunk_schema, chunk.chunk_name);
    RETURN NEXT format('%I.%I', chunk.chunk_schema, chunk.chunk_name);
  END LOOP;
END $$;
CREATE TABLE metrics (id bigint, at {type} NOT NULL, status text);
INSERT INTO timescaledb_information.dimensions
    VALUES ('public', 'metrics', 1, 'at', '{type}'::regtype, 'Time');
"""
_CHUNK = """
CREATE TABLE _timescaledb_internal.chunk_{k} (CHECK (at >= {start} AND at < {until}))
    INHERITS (metrics);
INSERT INTO timescaledb_information.chunks (hypertable_schema, hypertable_name, chunk_schema,
    chunk_name, {first}, {last})
    VALUES ('public', 'metrics', '_timescaledb_internal', 'chunk_{k}', {start}, {until});
INSERT INTO _timescaledb_internal.chunk_{k} SELECT {k}, {start} FROM generate_series(1, 100);
ANALYZE _timescaledb_internal.chunk_{k};
"""
# Another space of the oldest stretch of time.
_TWIN = """
CREATE TABLE _timescaledb_internal.chunk_99 () INHERITS (metrics);
INSERT INTO timescaledb_information.chunks SELECT c.hypertable_schema, c.hypertable_name,
    c.chunk_schema, 'chunk_99', c.range_start, c.range_end
    FROM timescaledb_information.chunks c WHERE c.chunk_name = 'chunk_9';
INSERT INTO _timescaledb_internal.chunk_99 SELECT id, at FROM _timescaledb_internal.chunk_9;
ANALYZE _timescaledb_internal.chunk_99;
"""
_OTHERWISE = """
CREATE OR REPLACE FUNCTION drop_chunks(relation regclass, older_than timestamptz = NULL,
    newer_than timestamptz = NULL, "verbose" boolean = FALSE) RETURNS SETOF text
LANGUAGE plpgsql AS $$ BEGIN {then}; END $$
"""


def hypertable(database: Database, type_: str = "timestamptz") -> None:
    """Make one with ten chunks of 100 rows; chunk k holds days 10k - 5 to 10k + 5 ago."""
    timed = type_ == "timestamptz"
    first, last = (f"range_{end}{'' if timed else '_integer'}" for end in ("start", "end"))
    made = _TIMESCALE.replace("{type}", type_).replace("{start}", first).replace("{end}", last)
    database.run(made)
    for k in range(CHUNKS):
        edges = [f"date_trunc('day', now()) + interval '5 days' - {n} * interval '10 days'"
                 for n in (k + 1, k)]  # fmt: skip
        if not timed:
            edges = [f"extract(epoch FROM {edge})::bigint" for edge in edges]
        bounds = [database.one(f"SELECT ({edge})::text") for edge in edges]
        shown = [f"'{bound}'::{type_}" for bound in bounds]
        made = _CHUNK.format(k=k, start=shown[0], until=shown[1], first=first, last=last)
        database.run(made)


def chunks(database: Database) -> list[str]:
    return database.column(
        "SELECT relname::text FROM pg_class WHERE relname ~ '^chunk_[0-9]+$' ORDER BY 1"
    )


def per_day(days: int) -> tuple[ExpiryRule, ...]:
    return (ExpiryRule(reason="expired", keep_for=timedelta(days=days)),)


STAYING = [f"chunk_{k}" for k in range(4)]


@pytest.mark.parametrize("type_", ["timestamptz", "bigint"])
def test_chunks_are_dropped_once_all_their_rows_have_expired(
    database: Database, around: Surroundings, type_: str
) -> None:
    hypertable(database, type_)
    age = Age(columns=("at",), unit=None if type_ == "timestamptz" else "s")
    policy = policy_on(database, "metrics", age=age)

    told = run(policy, around, dry_run=True)
    assert len(chunks(database)) == CHUNKS
    result = run(policy, around)

    assert chunks(database) == STAYING
    assert (result.total, result.success) == (600, True)
    assert result.details == {"expired": 600, "partitions_detached": 0, "partitions_dropped": 6}
    assert any("whole chunks only" in warning for warning in result.warnings)
    assert told.plan is not None
    assert (told.plan["would_delete"], told.plan["details"]) == (600, result.details)
    assert len(told.plan["whole_partitions"]) == 6
    again = run(policy, around)
    assert (again.total, again.success) == (0, True)


def test_a_chunk_that_takes_long_to_unlink_goes_all_the_same(
    database: Database, around: Surroundings
) -> None:
    hypertable(database)
    slow = database.one("SELECT pg_get_functiondef('drop_chunks'::regproc)")
    database.run(slow.replace("BEGIN\n", "BEGIN\n  PERFORM pg_sleep(6);\n", 1))
    old = policy_on(database, "metrics", age=Age(columns=("at",)), rules=per_day(85))

    result = run(old, around)

    assert (result.success, result.details["partitions_dropped"]) == (True, 1)


def test_a_chunk_somebody_reads_stays_until_another_time(
    database: Database, around: Surroundings
) -> None:
    hypertable(database)
    policy = policy_on(database, "metrics", age=Age(columns=("at",)))
    with database.session() as user, user.cursor() as cursor:
        cursor.execute("SELECT FROM _timescaledb_internal.chunk_9")
        first = run(policy, around)

    assert not first.success
    second = run(policy, around)
    assert chunks(database) == STAYING
    assert (second.success, first.total + second.total) == (True, 600)


@pytest.mark.parametrize("type_", ["timestamptz", "bigint"])
def test_a_chunk_that_was_passed_over_stays_when_younger_ones_go(
    database: Database, around: Surroundings, type_: str
) -> None:
    """drop_chunks takes everything before a moment, unless it is told where to begin."""
    hypertable(database, type_)
    age = Age(columns=("at",), unit=None if type_ == "timestamptz" else "s")
    policy = policy_on(database, "metrics", age=age)
    with database.session() as user, user.cursor() as cursor:
        cursor.execute("SELECT FROM _timescaledb_internal.chunk_8")
        result = run(policy, around)

    assert chunks(database) == [*STAYING, "chunk_8"]
    assert (result.total, result.success, result.left_behind) == (500, False, 100)
    assert result.details["partitions_dropped"] == 5


def test_chunks_of_one_stretch_of_time_go_together(
    database: Database, around: Surroundings
) -> None:
    """With a second dimension there are several."""
    hypertable(database)
    database.run(_TWIN)

    told = run(policy_on(database, "metrics", age=Age(columns=("at",))), around, dry_run=True)
    result = run(policy_on(database, "metrics", age=Age(columns=("at",))), around)

    assert chunks(database) == STAYING
    assert (result.total, result.success) == (700, True)
    assert result.details == {"expired": 700, "partitions_detached": 0, "partitions_dropped": 7}
    assert told.plan is not None
    assert told.plan["details"] == result.details


def test_nothing_goes_where_drop_chunks_would_take_a_chunk_nobody_asked_for(
    database: Database, around: Surroundings
) -> None:
    hypertable(database)
    database.run(
        _OTHERWISE.replace("{then}", "RETURN NEXT '_timescaledb_internal.chunk_0'; RETURN")
    )
    result = run(policy_on(database, "metrics", age=Age(columns=("at",))), around)

    assert len(chunks(database)) == CHUNKS
    assert (result.total, result.success) == (0, False)
    assert any("would take _timescaledb_internal.chunk_0 along" in w for w in result.warnings)


def test_a_chunk_drop_chunks_passes_over_is_told_and_no_success(
    database: Database, around: Surroundings
) -> None:
    """A frozen one, for example."""
    hypertable(database)
    database.run(_OTHERWISE.replace("{then}", "RETURN"))
    result = run(policy_on(database, "metrics", age=Age(columns=("at",))), around)

    assert (result.total, result.success, result.left_behind) == (0, False, 600)
    assert any("drop_chunks leaves _timescaledb_internal.chunk_9" in w for w in result.warnings)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"rules": per_status(done=30)}, "not every old row"),
        ({"where": "status = 'x'"}, "not every old row"),
        ({"age": Age(expression="at + interval '1 s'")}, "not over the age"),
        ({"pace": replace(BRISK, row_budget=1)}, "limit"),
        ({"partitions": PartitionCare(then="keep")}, "can't be kept"),
        ({"partitions": PartitionCare(grace=timedelta(1))}, ""),
    ],
)
def test_a_chunk_that_may_hold_a_row_to_keep_is_refused(
    database: Database, around: Surroundings, change: dict[str, Any], why: str
) -> None:
    hypertable(database)
    policy = policy_on(database, "metrics", **{"age": Age(columns=("at",)), **change})
    if not why:
        assert run(policy, around).success
        return

    for dry_run in (True, False):
        with pytest.raises(PolicyRefused, match=why):
            run(policy, around, dry_run=dry_run)
    assert len(chunks(database)) == CHUNKS


def test_a_table_others_merely_inherit_from_is_refused_as_ever(
    database: Database, around: Surroundings
) -> None:
    hypertable(database)
    database.run("CREATE TABLE a (at timestamptz); CREATE TABLE b () INHERITS (a)")

    with pytest.raises(NotATable, match="inherit"):
        run(policy_on(database, "a", age=Age(columns=("at",))), around)
