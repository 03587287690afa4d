"""Exporting beside users: whoever alters or writes to a detached partition is let through; whoever is
kept from seeing its rows does not export it.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.operations.archives import export
from housekeeping.operations.partitions import exporting as exporting_of_partitions
from housekeeping.policies.result import StopReason
from housekeeping.stores.postgres.archives import unchanged
from tests.conditions import wait_until
from tests.integration.database import Database
from tests.integration.exported_partitions import ALL, OLDEST, STAYING, due, exporting, manifests
from tests.integration.partitions import fill, move_time, partitioned, there
from tests.integration.runs import BRISK, run, running

ROLE = "partition_owner"
SLEEPING = (
    "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(20)' AND state = 'active'"
)


@pytest.mark.parametrize(
    ("where", "statement"),
    [
        (export, f"ALTER TABLE {OLDEST} ADD late int"),
        (unchanged, f"INSERT INTO {OLDEST} SELECT 1000, created_at FROM {OLDEST} LIMIT 1"),
    ],
    ids=["while it is read", "while it is counted"],
)
def test_whoever_waits_for_us_is_let_through(
    database: Database,
    around: Surroundings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: Any,
    statement: str,
) -> None:
    policy = due(database, around, tmp_path)
    count, slept = where.fingerprint, []

    def slowly(connection: Any, *given: Any, **more: Any) -> Any:
        if not slept:
            slept.append(True)
            connection.exec_driver_sql(f"SELECT FROM public.{OLDEST} LIMIT 1")  # its lock
            connection.exec_driver_sql("SELECT pg_sleep(20)")
        return count(connection, *given, **more)

    monkeypatch.setattr(where, "fingerprint", slowly)
    with running(policy, around) as ours:
        wait_until(lambda: database.one(SLEEPING) > 0, 10)
        begun = time.monotonic()
        database.run(statement)
        assert time.monotonic() - begun < 5
        result = ours.result(30)

    if where is export:  # it was read again, with the new column
        assert (result.success, there(database)) == (True, STAYING)
    else:
        assert (result.success, database.count(OLDEST)) == (False, 11)
        assert any("changed after they had been exported" in told for told in result.warnings)


def test_a_lease_lost_during_an_export_ends_the_run_and_drops_nothing(
    database: Database, around: Surroundings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = replace(BRISK, lease_ttl=timedelta(milliseconds=600))
    policy = due(database, around, tmp_path, pace=quick)

    def endless(*_: Any) -> Iterator[list[Any]]:
        """A large table, whose reading ends only because somebody else has the lease by now."""
        (key,) = around.redis.scan_iter("{housekeeping:lease:*")
        around.redis.set(key, "another run's", px=60_000)
        while True:
            yield []

    monkeypatch.setattr(export, "text_rows", endless)
    result = run(policy, around)

    assert result.stop_reason is StopReason.LOCK_LOST
    assert there(database) == ALL
    assert list(tmp_path.iterdir()) == []


def test_rows_that_are_hidden_from_us_are_not_left_out_of_an_export(
    database: Database, around: Surroundings, tmp_path: Path
) -> None:
    owner = _owned(database)
    policy = exporting(owner, tmp_path)
    assert run(policy, around).details["partitions_detached"] == 6
    move_time(owner, 61)
    _hide(owner)

    result = run(policy, around)

    assert (result.success, result.details["partitions_dropped"]) == (False, 5)
    assert any("row-level security hides its rows" in told for told in result.warnings)
    assert database.count(OLDEST) == 10
    assert OLDEST not in manifests(tmp_path)


def test_rows_that_come_to_be_hidden_are_neither_left_out_nor_dropped(
    database: Database, around: Surroundings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody enables row-level security after we have looked whether it hides anything."""
    monkeypatch.setattr(exporting_of_partitions, "rows_hidden", lambda *_: False)
    owner = _owned(database)
    policy = exporting(owner, tmp_path)
    run(policy, around)
    move_time(owner, 61)
    _hide(owner)

    result = run(policy, around)

    assert not result.success
    assert "row-level security" in " ".join((*result.warnings, result.error or ""))
    assert database.count(OLDEST) == 10
    assert OLDEST not in manifests(tmp_path)


def _owned(database: Database) -> Database:
    """Return the database as a role sees it that owns a filled partitioned table and is no superuser."""
    database.run(
        f"DO $$ BEGIN CREATE ROLE {ROLE} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
    )
    database.run(f"GRANT ALL ON SCHEMA public TO {ROLE}")
    database.run(
        f"GRANT CREATE ON DATABASE {database.url.rpartition('/')[2].partition('?')[0]} TO {ROLE}"
    )
    owner = Database(database.url.replace("postgres@", f"{ROLE}@"), database.version)
    partitioned(owner)
    fill(owner)
    return owner


def _hide(owner: Database) -> None:
    owner.run(
        f"CREATE POLICY late_ones ON {OLDEST} USING (id > 90);"
        f"ALTER TABLE {OLDEST} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
    )
