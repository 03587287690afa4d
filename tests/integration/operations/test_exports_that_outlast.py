"""An export that takes longer than its run may: nothing is half done, and the reader hears why."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from housekeeping.engine.run import Surroundings
from housekeeping.operations.archives import export
from housekeeping.policies.result import RunResult, StopReason
from housekeeping.stores.files.exports import Exports
from tests.integration import archived as months
from tests.integration import exported_partitions as partitions
from tests.integration.database import Database
from tests.integration.partitions import there
from tests.integration.runs import BRISK, LeapingClock, hours_from_now, run

PACE = replace(BRISK, time_budget=timedelta(hours=1))
A_DAY = replace(BRISK, time_budget=timedelta(days=1))
TWO_HOURS = 7_200
TOLD = "s, when the run's time was over. It begins anew each time"

Outlasting = Callable[
    [Callable[[Surroundings], RunResult], Surroundings, pytest.MonkeyPatch], RunResult
]


def outlasting(
    work: Callable[[Surroundings], RunResult], around: Surroundings, patch: pytest.MonkeyPatch
) -> RunResult:
    """Do some work whose first export takes two hours."""
    clock, publish = LeapingClock(), Exports.publish

    def slow(*given: Any) -> Any:
        clock.ahead += TWO_HOURS
        return publish(*given)

    with patch.context() as meanwhile:
        meanwhile.setattr(Exports, "publish", slow)
        return work(replace(around, clock=clock))


def outlasting_in_a_statement(
    work: Callable[[Surroundings], RunResult], around: Surroundings, patch: pytest.MonkeyPatch
) -> RunResult:
    """Do some work whose first export has its time end amid the statement that sums its rows up."""
    clock = LeapingClock()

    def slow(connection: Connection, *_: Any, **__: Any) -> None:
        clock.ahead += TWO_HOURS
        connection.execute(text("SELECT pg_sleep(60)"))

    with patch.context() as meanwhile:
        meanwhile.setattr(export, "fingerprint", slow)
        return work(replace(around, clock=clock))


@pytest.mark.parametrize("longest", [outlasting, outlasting_in_a_statement])
def test_a_month_stays_and_comes_first_the_next_time(
    archived: Database,
    around: Surroundings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    longest: Outlasting,
) -> None:
    policy = months.exporting(archived, tmp_path, pace=PACE)

    result = longest(lambda slow: months.expire(policy, slow), around, monkeypatch)

    assert result.stop_reason is StopReason.TIME_BUDGET
    (warning,) = result.warnings
    assert warning.startswith(f"{months.JANUARY} stays: its export was not done after 72")
    assert TOLD in warning
    assert months.there(archived) == [months.JANUARY, months.FEBRUARY]
    assert list(tmp_path.glob("*.manifest.json")) == []
    assert months.expire(policy, around).details["tables_exported"] == 2


@pytest.mark.parametrize("longest", [outlasting, outlasting_in_a_statement])
def test_a_partition_stays_and_comes_first_the_next_time(
    database: Database,
    around: Surroundings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    longest: Outlasting,
) -> None:
    policy = replace(partitions.due(database, around, tmp_path), pace=PACE)

    result = longest(lambda slow: run(policy, slow), around, monkeypatch)

    assert result.stop_reason is StopReason.TIME_BUDGET
    assert any(f"after 7200 {TOLD}" in warning for warning in result.warnings), result.warnings
    assert there(database) == partitions.ALL
    assert partitions.manifests(tmp_path) == []
    assert run(policy, around).details["partitions_exported"] == 6


def test_a_month_stays_when_its_runs_hours_end_amid_a_statement(
    archived: Database, around: Surroundings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pace = replace(A_DAY, only_between=hours_from_now(archived, -60, 60))
    policy = months.exporting(archived, tmp_path, pace=pace)

    result = outlasting_in_a_statement(
        lambda slow: months.expire(policy, slow), around, monkeypatch
    )

    assert result.stop_reason is StopReason.TIME_BUDGET
    assert any("outside of only_between" in told for told in result.warnings), result.warnings
    assert months.there(archived) == [months.JANUARY, months.FEBRUARY]
    assert list(tmp_path.glob("*.manifest.json")) == []


def test_a_partition_stays_when_its_runs_hours_end_amid_a_statement(
    database: Database, around: Surroundings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pace = replace(A_DAY, only_between=hours_from_now(database, -60, 60))
    policy = replace(partitions.due(database, around, tmp_path), pace=pace)

    result = outlasting_in_a_statement(lambda slow: run(policy, slow), around, monkeypatch)

    assert result.stop_reason is StopReason.TIME_BUDGET
    assert any("outside of only_between" in told for told in result.warnings), result.warnings
    assert there(database) == partitions.ALL
    assert partitions.manifests(tmp_path) == []
