"""A detached partition is exported before it is dropped: all of its rows, once, or it stays."""

from pathlib import Path
from typing import Any

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.operations.inspection import inspect_purge
from housekeeping.policies.errors import ExportUnreachable
from housekeeping.policies.purge import PartitionCare
from housekeeping.policies.result import StopReason
from housekeeping.stores.files.exports import Exports
from tests.integration.archived import EVERY_FORMAT, entry
from tests.integration.database import Database
from tests.integration.exported_partitions import (
    ALL,
    GRACE,
    OLDEST,
    STAYING,
    back,
    due,
    exporting,
    filled,
    images,
    manifest_of,
    manifests,
    partition_again,
)
from tests.integration.holding import place
from tests.integration.partitions import (
    WHOLE,
    ages,
    fill,
    move_time,
    partitioned,
    states,
    there,
)
from tests.integration.runs import AfterWindow, listening, policy_on, run

GONE = [f"events_{k}" for k in sorted(WHOLE)]


@EVERY_FORMAT
def test_partitions_are_exported_then_dropped_and_their_rows_come_back_to_the_byte(
    database: Database, around: Surroundings, tmp_path: Path, format_: Any
) -> None:
    filled(database)
    before = images(database)
    policy = due(database, around, tmp_path, format_)
    assert manifests(tmp_path) == []  # not before it has to be

    result = run(policy, around)

    assert result.success, result
    assert result.details == {
        "expired": 0, "partitions_detached": 0, "partitions_exported": 6, "partitions_dropped": 6,
    }  # fmt: skip
    assert there(database) == STAYING
    assert manifests(tmp_path) == GONE
    told = entry(result, f"public.{OLDEST}")
    assert told["done"] == "dropped"
    assert told["exported_to"] == f"{tmp_path}/public.{OLDEST}.manifest.json"
    manifest = manifest_of(tmp_path)
    assert (manifest["source"], manifest["rows"]) == ("public.events", 10)
    assert manifest["partition"]["bounds"].startswith("FOR VALUES FROM ('")

    for name in GONE:
        partition_again(database, name)
        assert back(database, around, tmp_path, name).success
    assert images(database) == before
    again = back(database, around, tmp_path)
    assert (again.success, again.total) == (True, 0)


def test_rows_go_with_their_whole_partition_or_not_at_all(
    database: Database, around: Surroundings, tmp_path: Path
) -> None:
    """One by one, expired rows of the partition the cutoff falls into would be in no export."""
    partitioned(database)
    fill(database)
    database.run("CREATE TABLE rest PARTITION OF events DEFAULT")
    database.run("INSERT INTO events VALUES (500, '1990-01-01', 'done')")

    result = run(exporting(database, tmp_path), around)

    assert result.success, result
    assert ages(database) == [
        *range(36),
        500,
    ]  # all of partition 3, though from row 30 on it expired
    assert result.total == result.details["expired"] == 60
    assert any("public.events_3, public.rest stay for now" in told for told in result.warnings)


def test_a_partition_that_is_partitioned_itself_is_read_through_its_parent(
    database: Database, around: Surroundings, tmp_path: Path
) -> None:
    partitioned(database)
    database.run(
        "CREATE TABLE old PARTITION OF events FOR VALUES FROM ('1990-01-01') TO ('2000-01-01')"
        " PARTITION BY HASH (id);"
        "CREATE TABLE old_0 PARTITION OF old FOR VALUES WITH (MODULUS 2, REMAINDER 0);"
        # its columns lie in another order
        "CREATE TABLE old_1 (status text, created_at timestamptz NOT NULL, id bigint);"
        "ALTER TABLE old ATTACH PARTITION old_1 FOR VALUES WITH (MODULUS 2, REMAINDER 1);"
        "INSERT INTO events SELECT i, '1995-01-01', 'old ' || i FROM generate_series(500, 540) i"
    )
    fill(database)
    before = images(database)

    result = run(due(database, around, tmp_path), around)

    assert result.success, result
    assert database.one("SELECT to_regclass('old_0') IS NULL")
    assert manifest_of(tmp_path, "old")["rows"] == 41
    database.run("CREATE TABLE others PARTITION OF events DEFAULT")
    assert back(database, around, tmp_path, "old").total == 41
    assert {key: before[key] for key in range(500, 541)} == {
        key: image for key, image in images(database).items() if key >= 500
    }


def test_a_place_that_can_not_be_reached_keeps_the_partitions_and_other_work_goes_on(
    database: Database, around: Surroundings, tmp_path: Path
) -> None:
    folder = tmp_path / "mounted"
    policy = due(database, around, folder)
    database.run(
        "CREATE TABLE events_late PARTITION OF events"
        " FOR VALUES FROM ('2001-01-01') TO ('2001-02-01')"
    )

    result = run(policy, around)

    assert there(database) == [*ALL, "events_late"]
    assert (result.success, result.exit_code) == (False, 2)
    assert result.details["partitions_detached"] == 1
    assert any("there is no such folder; make it" in told for told in result.warnings)
    (error,) = database.column(
        "SELECT DISTINCT error FROM housekeeping.detached_partition WHERE error IS NOT NULL"
    )
    assert "could not be exported" in error
    with pytest.raises(ExportUnreachable):
        inspect_purge(policy)

    folder.mkdir()
    assert inspect_purge(policy).told
    assert run(policy, around).details["partitions_exported"] == 6
    assert there(database) == [*STAYING, "events_late"]


def test_a_row_written_after_the_export_keeps_the_table_until_it_is_exported_too(
    database: Database, around: Surroundings, tmp_path: Path
) -> None:
    policy = due(database, around, tmp_path)
    writes = AfterWindow(
        lambda: database.run(f"INSERT INTO {OLDEST} SELECT 1000, created_at FROM {OLDEST} LIMIT 1")
    )

    result = run(policy, listening(around, writes))

    assert writes.outcome is None
    assert (result.success, result.details["partitions_dropped"]) == (False, 5)
    assert any("changed after they had been exported" in told for told in result.warnings)
    assert database.count(OLDEST) == 11

    again = run(policy, around)
    assert (again.success, again.details["partitions_exported"]) == (True, 1)
    assert there(database) == STAYING
    assert manifest_of(tmp_path)["rows"] == 10
    assert manifest_of(tmp_path, f"{OLDEST}.2")["rows"] == 11
    ledger = database.one(
        "SELECT exported FROM housekeeping.detached_partition WHERE relation_name = %s", OLDEST
    )
    assert ledger["manifest"].endswith(f"{OLDEST}.2.manifest.json")
    assert ledger["earlier"]["rows"] == 10


def test_an_export_that_is_there_already_is_read_back_and_used(
    database: Database, around: Surroundings, tmp_path: Path
) -> None:
    policy = due(database, around, tmp_path)
    database.run(f"CREATE VIEW report AS SELECT * FROM {OLDEST}")
    assert not run(policy, around).success  # exported, and then it could not be dropped
    written = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    database.run("DROP VIEW report")

    result = run(policy, around)

    assert (result.success, result.details["partitions_dropped"]) == (True, 1)
    assert result.details["partitions_exported"] == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == written


def test_a_damaged_export_keeps_the_partition(
    database: Database, around: Surroundings, tmp_path: Path
) -> None:
    policy = due(database, around, tmp_path)
    database.run(f"CREATE VIEW report AS SELECT * FROM {OLDEST}")
    run(policy, around)
    database.run("DROP VIEW report")
    file = tmp_path / f"public.{OLDEST}.csv.gz"
    file.write_bytes(file.read_bytes()[:-5])

    result = run(policy, around)

    assert (result.success, database.count(OLDEST)) == (False, 10)
    assert any("not what its manifest says" in told for told in result.warnings)


def test_a_held_partition_stays_and_is_not_exported(
    database: Database, around: Surroundings, tmp_path: Path
) -> None:
    policy = due(database, around, tmp_path)
    place(database, "id = 95")

    result = run(policy, around)

    assert (result.success, result.details["partitions_dropped"]) == (True, 5)
    assert database.count(OLDEST) == 10
    assert OLDEST not in manifests(tmp_path)
    # Under a hold none goes whole: what has expired since waits for it.
    assert ages(database) == list(range(36))


@pytest.mark.parametrize("keeps", ["drop_after = NULL", "detached_at = now()"])
def test_what_is_not_due_is_not_exported(
    database: Database, around: Surroundings, tmp_path: Path, keeps: str
) -> None:
    policy = due(database, around, tmp_path)
    database.run(
        f"UPDATE housekeeping.detached_partition SET {keeps} WHERE relation_name = '{OLDEST}'"
    )

    assert run(policy, around).details["partitions_exported"] == 5

    assert there(database) == [*STAYING, OLDEST]
    assert OLDEST not in manifests(tmp_path)


def test_a_dry_run_says_what_would_be_exported_and_writes_nothing(
    database: Database, around: Surroundings, tmp_path: Path
) -> None:
    policy = due(database, around, tmp_path)

    told = run(policy, around, dry_run=True)

    assert told.plan is not None
    assert told.plan["details"]["partitions_exported"] == 6
    assert told.plan["details"]["partitions_dropped"] == 6
    assert f"would be exported to {tmp_path}, then dropped" in told.plan["because"]
    assert told.plan["would_delete"] == 0
    assert list(tmp_path.iterdir()) == []
    assert there(database) == ALL


def test_told_to_leave_during_an_export_it_leaves_and_goes_on_the_next_time(
    database: Database, around: Surroundings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = due(database, around, tmp_path)
    publish = Exports.publish

    def paused(*given: Any) -> Any:
        around.control.pause("tasks.tables.purge")
        return publish(*given)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(Exports, "publish", paused)
        result = run(policy, around)

    assert result.stop_reason is StopReason.PAUSED
    assert there(database) == ALL
    assert manifests(tmp_path) == []
    around.control.resume("tasks.tables.purge")
    assert run(policy, around).details["partitions_exported"] == 6
    assert manifests(tmp_path) == GONE
    assert len(list(tmp_path.iterdir())) == 12


def test_what_was_detached_before_the_policy_exported_is_exported_too(
    database: Database, around: Surroundings, tmp_path: Path
) -> None:
    partitioned(database)
    fill(database)
    run(policy_on(database, partitions=PartitionCare(grace=GRACE)), around)
    move_time(database, 61)

    assert run(exporting(database, tmp_path), around).details["partitions_exported"] == 6
    assert set(states(database).values()) == {"dropped"}
