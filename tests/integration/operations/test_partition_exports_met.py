"""What happens to a partition between its export and its drop, or to one that was exported before."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from housekeeping.engine import throttling
from housekeeping.engine.run import Surroundings
from housekeeping.policies.archives import ExportTo
from housekeeping.policies.errors import RestoreRefused, RunInterrupted
from housekeeping.policies.purge import PartitionCare
from housekeeping.policies.result import StopReason
from housekeeping.stores.files.exports import Exports
from tests.integration.archived import put_back, restoring
from tests.integration.database import Database
from tests.integration.exported_partitions import (
    ALL,
    OLDEST,
    STAYING,
    back,
    due,
    exporting,
    manifests,
    partition_again,
)
from tests.integration.operations.test_locked_leaves import TERMINATE
from tests.integration.operations.test_pacing_of_partitions import SALE, careful
from tests.integration.partitions import move_time, states, there
from tests.integration.runs import AfterWindow, listening, policy_on, run


def only_the_oldest(database: Database) -> None:
    """Keep every other detached partition for good."""
    database.run(
        "UPDATE housekeeping.detached_partition SET drop_after = NULL WHERE relation_name <> %s",
        OLDEST,
    )


def gone_again(database: Database, around: Surroundings, folder: Path) -> None:
    """Detach what expired, export and drop it."""
    for _ in range(2):
        result = run(exporting(database, folder), around)
        assert result.success, result
        move_time(database, 61)


@pytest.mark.parametrize("grace", [timedelta(0), timedelta(days=1)])
def test_another_policy_does_not_drop_what_is_to_be_exported(
    database: Database, around: Surroundings, tmp_path: Path, grace: timedelta
) -> None:
    """`partition_export_to` of one policy on a table was undone by any other one on it."""
    policy = due(database, around, tmp_path)
    move_time(database, 2 * 86_400)
    other = policy_on(database, name="other", partitions=PartitionCare(grace=grace))

    told = run(other, around, dry_run=True)
    result = run(other, around)

    assert there(database) == ALL
    assert (result.success, result.details["partitions_dropped"]) == (True, 0)
    assert any(f"{OLDEST}: policy plain detached it" in warning for warning in result.warnings)
    assert told.plan is not None
    assert told.plan["details"]["partitions_dropped"] == 0
    assert run(policy, around).details["partitions_exported"] == 6
    assert there(database) == STAYING


def test_another_policy_that_exports_as_well_may_drop_it(
    database: Database, around: Surroundings, tmp_path: Path
) -> None:
    policy = due(database, around, tmp_path)

    assert run(replace(policy, name="other"), around).details["partitions_exported"] == 6


def test_told_to_leave_during_its_last_export_a_run_says_so(
    database: Database, around: Surroundings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = due(database, around, tmp_path)
    only_the_oldest(database)
    publish = Exports.publish

    def paused(*given: Any) -> Any:
        around.control.pause("tasks.tables.purge")
        return publish(*given)

    monkeypatch.setattr(Exports, "publish", paused)
    result = run(policy, around)

    assert (result.stop_reason, result.success) == (StopReason.PAUSED, False)
    assert there(database) == ALL


def test_a_database_that_is_unwell_after_an_export_is_let_be(
    database: Database, around: Surroundings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttling, "_FRESH_SECONDS", 0.0)  # as if the export took longer
    policy = careful(due(database, around, tmp_path))
    only_the_oldest(database)
    database.run("CREATE TABLE sale (reason text)")
    exported = AfterWindow(lambda: database.run(SALE))

    result = run(policy, listening(around, exported))

    assert exported.outcome is None
    assert there(database) == ALL
    assert manifests(tmp_path) == [OLDEST]
    assert (result.stop_reason, result.details["partitions_exported"]) == (StopReason.THROTTLED, 1)
    assert any("summer sale" in warning for warning in result.warnings)
    database.run("DELETE FROM sale")
    again = run(policy, around)
    assert (again.success, again.details["partitions_exported"]) == (True, 0)
    assert again.details["partitions_dropped"] == 1


def test_one_that_is_settled_by_hand_after_its_export_stays_and_the_others_go(
    database: Database, around: Surroundings, tmp_path: Path
) -> None:
    policy = due(database, around, tmp_path)
    settle = AfterWindow(
        lambda: database.run(
            "UPDATE housekeeping.detached_partition SET state = 'returned' WHERE relation_name = %s",
            OLDEST,
        )
    )

    result = run(policy, listening(around, settle))

    assert settle.outcome is None
    assert result.stop_reason is StopReason.EXHAUSTED
    assert there(database) == [*STAYING, OLDEST]
    assert any(f"{OLDEST} is no longer the partition" in told for told in result.warnings)


def test_without_a_key_it_comes_back_from_every_export_of_the_same_rows(
    database: Database, around: Surroundings, tmp_path: Path
) -> None:
    """It was put back, expired again, was exported again with the very same rows, and dropped."""
    due(database, around, tmp_path)
    for name in (OLDEST, f"{OLDEST}.2"):
        gone_again(database, around, tmp_path)
        partition_again(database)

        result = back(database, around, tmp_path, name)

        assert (result.success, result.total, database.count(OLDEST)) == (True, 10, 10)
    again = back(database, around, tmp_path, f"{OLDEST}.2")
    assert (again.total, again.details["already_there"]) == (0, 10)


def test_by_its_name_the_newest_comes_back_and_earlier_exports_are_told(
    database: Database, around: Surroundings, tmp_path: Path
) -> None:
    """Late rows of a month that had gone already made a partition of its own name once more."""
    policy = due(database, around, tmp_path)
    gone_again(database, around, tmp_path)
    partition_again(database)
    database.run("INSERT INTO events VALUES (1000, now() - interval '88 days', 'late')")
    gone_again(database, around, tmp_path)
    partition_again(database)
    named = restoring(
        database, relation=OLDEST, places=(ExportTo(url=str(tmp_path), format="csv"),)
    )

    result = put_back(named, around)

    assert (result.success, result.total) == (True, 1)
    earlier = f"an earlier public.{OLDEST} was exported too, with 10 rows, to {tmp_path}/"
    assert any(earlier in told for told in result.warnings), result.warnings
    run(policy, around)
    move_time(database, 61)
    run(replace(policy, partitions=replace(policy.partitions, export=None)), around)
    with pytest.raises(RestoreRefused, match="without an export; an earlier") as refused:
        put_back(named, around)
    assert refused.value.message.count("was exported too") == 2


def test_a_later_attempt_that_exports_what_an_earlier_one_could_not_is_a_success(
    database: Database, around: Surroundings, tmp_path: Path
) -> None:
    folder, run_id = tmp_path / "mounted", uuid4()
    policy = due(database, around, folder)
    database.run(
        "CREATE TABLE events_late PARTITION OF events"
        " FOR VALUES FROM ('2001-01-01') TO ('2001-02-01');"
        "CREATE TABLE events_later PARTITION OF events"
        " FOR VALUES FROM ('2001-02-01') TO ('2001-03-01')"
    )
    killer = AfterWindow(lambda: database.run(TERMINATE))
    with pytest.raises(RunInterrupted):
        run(policy, listening(around, killer), run_id=run_id, will_retry=True)
    assert killer.outcome is None
    assert there(database) == [*ALL, "events_late", "events_later"]
    folder.mkdir()

    result = run(policy, around, run_id=run_id)

    assert (result.left_behind, result.success) == (0, True), result
    assert result.details["partitions_dropped"] == 6
    assert [each["done"] for each in result.tables].count("left") == 0
    assert states(database)[OLDEST] == "dropped"
