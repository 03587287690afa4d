"""A table whose partitions pg_partman retires is left to it; one it only creates is ours."""

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.operations.inspection import inspect_purge
from housekeeping.policies.errors import PrivilegeMissing
from tests.integration.database import Database
from tests.integration.partitions import DAYS, EXPIRED, attached, fill, partitioned, there
from tests.integration.runs import policy_on, run

ALL = [f"events_{k}" for k in range(10)]
# What of pg_partman's own table counts here, for servers it can't be installed on.
_STAND_IN = """
CREATE TABLE partman.part_config (
    parent_table text PRIMARY KEY, control text NOT NULL, partition_interval text NOT NULL,
    retention text, retention_schema text, retention_keep_table boolean NOT NULL DEFAULT true)
"""
_CONFIGURE = """
INSERT INTO partman.part_config (parent_table, control, partition_interval{more})
VALUES ('public.events', 'created_at', '10 days'{values})
"""


def configured(database: Database, retention: str | None) -> bool:
    """Have pg_partman look after `events`; return whether it is the real one."""
    database.run("CREATE SCHEMA partman")
    offered = "SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_partman'"
    real = bool(database.one(offered))
    database.run("CREATE EXTENSION pg_partman SCHEMA partman" if real else _STAND_IN)
    columns = database.column(
        "SELECT attname::text FROM pg_attribute WHERE attrelid = 'partman.part_config'::regclass"
    )
    own = {"partition_type": "'native'", "premake": "4"}
    given = {name: value for name, value in own.items() if name in columns}
    given["retention"] = f"'{retention}'" if retention else "NULL"
    more = "".join(f", {name}" for name in given)
    values = "".join(f", {value}" for value in given.values())
    database.run(_CONFIGURE.format(more=more, values=values))
    return real


def test_a_table_pg_partman_retires_is_reported_and_left_alone(
    database: Database, around: Surroundings
) -> None:
    partitioned(database)
    fill(database)
    configured(database, "30 days")

    plan = run(policy_on(database), around, dry_run=True).plan
    result = run(policy_on(database), around)

    assert (result.total, result.success) == (0, True)
    assert any("pg_partman retires" in told and "30 days" in told for told in result.warnings)
    assert attached(database) == there(database) == ALL
    assert database.count("events") == DAYS
    assert plan is not None
    assert (plan["would_delete"], plan["whole_partitions"]) == (0, [])
    assert any("pg_partman" in told for told in inspect_purge(policy_on(database)).warnings)


def test_a_table_pg_partman_only_makes_partitions_for_is_ours(
    database: Database, around: Surroundings
) -> None:
    partitioned(database)
    fill(database)
    configured(database, None)

    result = run(policy_on(database), around)

    assert result.total == EXPIRED
    assert result.details["partitions_detached"] == 6


def test_what_pg_partman_is_told_has_to_be_readable(
    database: Database, around: Surroundings
) -> None:
    partitioned(database)
    fill(database)
    configured(database, None)
    name = database.one("SELECT current_database()")
    database.run("DROP ROLE IF EXISTS reader; CREATE ROLE reader LOGIN")
    database.run(
        f"GRANT CREATE ON DATABASE {name} TO reader;"
        "GRANT SELECT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO reader"
    )
    policy = policy_on(Database(database.url.replace("postgres@", "reader@"), database.version))
    try:
        with pytest.raises(PrivilegeMissing, match="part_config") as refused:
            run(policy, around)
        database.run(str(refused.value.facts["remedy"]))
        assert run(policy, around).total == EXPIRED
    finally:
        database.run("DROP OWNED BY reader; DROP ROLE reader")
