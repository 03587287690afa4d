"""What each health signal makes of its facts; that the facts are real, integration tests show."""

from datetime import timedelta
from typing import Any

import pytest

from housekeeping.engine.health import Judge
from housekeeping.policies.health import HealthLimits, Reading, Verdict, worst
from housekeeping.stores.postgres.health.archiver import ArchiveBacklog
from housekeeping.stores.postgres.health.disk import DiskHeadroom
from housekeeping.stores.postgres.health.own_sql import OwnSql
from housekeeping.stores.postgres.health.replication import ReplicationLag
from housekeeping.stores.postgres.health.sampling import signals_for
from housekeeping.stores.postgres.health.signals import Seen, Signal, size_told
from housekeeping.stores.postgres.health.slots import ReplicationSlots
from housekeeping.stores.postgres.health.vacuum import VacuumOnTable
from housekeeping.stores.postgres.health.waiters import LockWaiters
from housekeeping.stores.postgres.health.wal_rate import WalRate

GO, SLOW, STOP = Verdict.GO, Verdict.SLOW, Verdict.STOP
MB = 1024 * 1024
LIMITS = HealthLimits(
    max_replication_lag=timedelta(seconds=10),
    max_replication_bytes=100 * MB,
    expected_standbys=("mirror",),
    ignored_standbys=("delayed",),
    max_lock_waiters=10,
    max_archive_backlog=42,
    max_wal_rate=10 * MB,
    min_free_disk=1000 * MB,
    free_disk_sql="SELECT 1",
    sql="SELECT 1",
)


def standby(name: str = "mirror", **facts: Any) -> dict[str, Any]:
    plain = {"state": "streaming", "bytes": 0, "seconds": None, "logical": False}
    return {"name": name, **plain, **facts}


def judged(signal: Signal, facts: dict[str, Any], **seen: Any) -> Reading:
    return signal.judge(Seen(facts, **seen))


@pytest.mark.parametrize(
    ("standbys", "verdict"),
    [
        ([standby()], GO),
        ([standby(bytes=50 * MB)], GO),
        ([standby(bytes=50 * MB + 1)], SLOW),
        ([standby(bytes=100 * MB + 1)], STOP),
        ([standby(bytes=1, seconds=9.9)], SLOW),
        ([standby(bytes=1, seconds=10.1)], STOP),
        ([standby(bytes=0, seconds=10.1)], GO),  # caught up; the time is of the last change
        ([standby(bytes=-56)], GO),  # it replayed while we asked
        ([standby(bytes=None)], STOP),
        ([standby(bytes=None, state=None)], STOP),
        ([], STOP),
        ([standby("other")], STOP),
        ([standby(), standby("other", bytes=101 * MB)], STOP),
        ([standby(), standby("delayed", bytes=101 * MB)], GO),
        ([standby(), standby("subscriber", bytes=101 * MB, logical=True)], GO),
        ([standby(logical=True, bytes=101 * MB)], STOP),  # expected by name
    ],
)
def test_replication_lag(standbys: list[dict[str, Any]], verdict: Verdict) -> None:
    assert judged(ReplicationLag(LIMITS), {"standbys": standbys}).verdict is verdict


def test_no_standby_and_none_expected_is_nothing_to_wait_for() -> None:
    assert judged(ReplicationLag(HealthLimits()), {"standbys": []}).verdict is GO


def test_a_lag_that_could_not_be_asked_for_stops() -> None:
    assert ReplicationLag(LIMITS).unknown("permission denied").verdict is STOP


@pytest.mark.parametrize(
    ("megabytes", "holding", "verdict"),
    [
        (101, False, STOP),
        (99, False, SLOW),
        (99, True, STOP),
        (51, True, STOP),
        (50, True, GO),
    ],
)
def test_a_limit_that_was_reached_is_held_until_half_of_it(
    megabytes: int,
    holding: bool,  # noqa: FBT001
    verdict: Verdict,
) -> None:
    facts = {"standbys": [standby(bytes=megabytes * MB)]}

    assert judged(ReplicationLag(LIMITS), facts, holding=holding).verdict is verdict


def slot(**facts: Any) -> dict[str, Any]:
    plain = {"physical": True, "active": True, "status": "reserved", "safe": None, "retained": 0}
    return {"slots": [{"name": "s", **plain, **facts}]}


@pytest.mark.parametrize(
    ("facts", "verdict"),
    [
        ({"slots": []}, GO),
        (slot(retained=500 * MB), GO),
        (slot(status="unreserved", safe=0), STOP),
        (slot(status="extended", safe=99 * MB), STOP),
        (slot(status="extended", safe=101 * MB), GO),
        (slot(status="lost", retained=None), GO),
        (slot(active=False, retained=99 * MB), GO),
        (slot(active=False, retained=101 * MB), SLOW),
        (slot(active=False, retained=101 * MB, physical=False), GO),
    ],
)
def test_replication_slots(facts: dict[str, Any], verdict: Verdict) -> None:
    assert judged(ReplicationSlots(LIMITS), facts).verdict is verdict


@pytest.mark.parametrize(("waiters", "verdict"), [(0, GO), (5, GO), (6, SLOW), (11, STOP)])
def test_lock_waiters(waiters: int, verdict: Verdict) -> None:
    assert judged(LockWaiters(LIMITS), {"waiters": waiters}).verdict is verdict


def test_without_patience_for_waiters_one_stops() -> None:
    none = HealthLimits(max_lock_waiters=0)

    assert judged(LockWaiters(none), {"waiters": 0}, holding=True).verdict is GO
    assert judged(LockWaiters(none), {"waiters": 1}).verdict is STOP


@pytest.mark.parametrize(
    ("table", "pause", "verdict"),
    [(7, False, SLOW), (7, True, STOP), (8, True, GO), (None, True, SLOW)],
)
def test_a_vacuum_on_the_table(
    table: int | None,
    pause: bool,  # noqa: FBT001
    verdict: Verdict,
) -> None:
    limits = HealthLimits(pause_during_autovacuum=pause)
    facts = {"vacuums": [{"table": table, "phase": "scanning heap", "pid": 42}]}

    assert judged(VacuumOnTable(limits, frozenset({7})), facts).verdict is verdict


def archived(**facts: Any) -> dict[str, Any]:
    plain = {
        "archives": True, "failing": False, "failed": None,
        "current": "000000010000000200000003", "archived": "000000010000000200000002",
        "segments_per_log": 256,
    }  # fmt: skip
    return {**plain, **facts}


@pytest.mark.parametrize(
    ("facts", "verdict", "backlog"),
    [
        (archived(), GO, 0),
        (archived(archives=False), GO, None),
        (archived(archived="0000000100000001000000E5"), SLOW, 29),
        (archived(archived="0000000100000001000000D0"), STOP, 50),
        (archived(archived="0000000100000001000000E5.00000028.backup"), SLOW, 29),
        (archived(archived=None), GO, 0),
        (archived(archived="00000002.history"), GO, 0),
        (archived(failing=True, failed="000000010000000200000002"), SLOW, 1),
        (archived(failing=True, failed="0000000100000001000000D0", archived=None), STOP, 51),
        (archived(archived="000000010000000100000000", segments_per_log=4), SLOW, 6),
    ],
)
def test_the_archive_backlog(facts: dict[str, Any], verdict: Verdict, backlog: int | None) -> None:
    limits = HealthLimits(max_archive_backlog=10) if facts["segments_per_log"] == 4 else LIMITS
    reading = judged(ArchiveBacklog(limits), facts)

    assert reading.verdict is verdict
    if backlog is not None:
        assert reading.reason.startswith(f"{backlog} WAL segments")


@pytest.mark.parametrize(
    ("before", "verdict"),
    [
        (None, GO),
        ({"bytes": 100 * MB, "at": 50.0}, GO),
        ({"bytes": 88 * MB, "at": 48.0}, SLOW),
        ({"bytes": 78 * MB, "at": 48.0}, STOP),
        ({"bytes": 0, "at": 50.0}, GO),  # the same sample
    ],
)
def test_the_wal_rate_is_the_difference_to_the_sample_before(
    before: dict[str, Any] | None, verdict: Verdict
) -> None:
    now = {"bytes": 100 * MB, "at": 50.0}

    assert judged(WalRate(LIMITS), now, before=before).verdict is verdict


@pytest.mark.parametrize(
    ("free", "holding", "verdict"),
    [
        (1001 * MB, False, GO),
        (999 * MB, False, STOP),
        (1100 * MB, True, STOP),
        (1251 * MB, True, GO),
        (None, False, SLOW),
        ("much", False, SLOW),
    ],
)
def test_disk_headroom(free: Any, holding: bool, verdict: Verdict) -> None:  # noqa: FBT001
    reading = judged(DiskHeadroom(LIMITS), {"free": free}, holding=holding)

    assert reading.verdict is verdict


@pytest.mark.parametrize(
    ("answer", "verdict", "reason"),
    [
        (None, GO, "None"),
        (False, GO, "False"),
        (0, GO, "0"),
        (-1, GO, "-1"),
        ("", GO, "''"),
        ("go", GO, "go"),
        ("SLOW: a sale is on", SLOW, "a sale is on"),
        ("stop", STOP, "stop"),
        ("stop: a sale is on", STOP, "a sale is on"),
        ("a sale is on", STOP, "a sale is on"),
        (True, STOP, "True"),
        (1, STOP, "1"),
        (0.5, STOP, "0.5"),
        ([1], STOP, "[1]"),
    ],
)
def test_a_users_own_answer(answer: Any, verdict: Verdict, reason: str) -> None:
    reading = judged(OwnSql(LIMITS), {"answer": answer})

    assert reading.verdict is verdict
    assert reason in reading.reason


def test_a_judge_remembers_what_it_stopped_for_and_the_sample_before() -> None:
    judge = Judge((ReplicationLag(LIMITS), WalRate(LIMITS)))

    def sample(behind: int, written: int, at: float) -> dict[str, Any]:
        return {
            "replication_lag": {"standbys": [standby(bytes=behind * MB)]},
            "wal_rate": {"bytes": written * MB, "at": at},
        }

    verdicts = [
        tuple(reading.verdict for reading in judge.judge(each))
        for each in (
            sample(101, 0, 1.0),
            sample(60, 1, 2.0),
            sample(60, 1, 2.0),  # the same sample again is no new one
            sample(40, 13, 3.0),
            sample(60, 13, 4.0),
        )
    ]

    assert verdicts == [(STOP, GO), (STOP, GO), (STOP, GO), (GO, STOP), (SLOW, GO)]


def test_a_signal_that_was_not_measured_is_unknown() -> None:
    readings = Judge(signals_for(LIMITS)).judge({"lock_waiters": {"unknown": "no such view"}})
    verdicts = {reading.signal: reading.verdict for reading in readings}

    assert verdicts["replication_lag"] is STOP
    assert verdicts["lock_waiters"] is SLOW
    assert verdicts["sql"] is STOP


def test_only_signals_with_a_limit_are_asked() -> None:
    plain = {signal.name for signal in signals_for(HealthLimits())}

    assert plain == {
        "replication_lag", "replication_slots", "lock_waiters", "autovacuum", "archive_backlog",
    }  # fmt: skip
    assert signals_for(HealthLimits(enabled=False)) == ()


def test_the_gravest_reading_counts_and_of_several_the_first() -> None:
    readings = tuple(
        Reading(str(number), verdict, "") for number, verdict in enumerate((GO, SLOW, STOP, STOP))
    )

    assert worst(readings) == readings[2]
    assert worst(readings[:1]) is None
    assert worst(()) is None


@pytest.mark.parametrize(
    ("size", "told"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1 kB"),
        (300 * MB, "300 MB"),
        (2**50, "1024 TB"),
    ],
)
def test_sizes_are_told_as_postgresql_does(size: int, told: str) -> None:
    assert size_told(size) == told
