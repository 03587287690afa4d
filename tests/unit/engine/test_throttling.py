"""The throttle alone: when it asks, how it waits, and what it tells, by a clock a test moves."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import psycopg2
import pytest
from psycopg2 import errors
from sqlalchemy.exc import DBAPIError

from housekeeping.engine.pacing import Budget, Rest
from housekeeping.engine.throttling import BLOCKED, HealthThrottle, Hours, Waited
from housekeeping.policies.errors import LeaseLost
from housekeeping.policies.health import HealthLimits, Reading, Verdict
from housekeeping.policies.hours import MaintenanceHours
from housekeeping.policies.pace import Pace
from housekeeping.policies.result import StopReason
from housekeeping.stores.postgres.slicing import SmallRests
from settings.hours import parse_hours

GO = Reading("lag", Verdict.GO, "all is well")
SLOW = Reading("lag", Verdict.SLOW, "half way")
STOP = Reading("lag", Verdict.STOP, "too far")
MINUTE = timedelta(minutes=1)


class FakeClock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class FakeHealth:
    answer: Callable[[], Reading] = lambda: GO
    replicated: bool = False
    asked: int = 0

    def readings(self, max_age: float) -> tuple[Reading, ...]:
        self.asked += 1
        return (self.answer(),)


class FakeWatch:
    yielded_to: str | None = None

    @contextmanager
    def window(self) -> Iterator[None]:
        yield


@dataclass
class Told:
    waits: list[str] = field(default_factory=list)
    changes: list[tuple[str, str]] = field(default_factory=list)

    def waiting(self, reading: Reading, seconds: float) -> None:
        self.waits.append(reading.reason)

    def paced(self, reading: Reading) -> None:
        self.changes.append((reading.signal, reading.verdict.name))


@dataclass
class Bench:
    """A throttle and what it works on."""

    clock: FakeClock = field(default_factory=FakeClock)
    health: FakeHealth = field(default_factory=FakeHealth)
    watch: FakeWatch = field(default_factory=FakeWatch)
    told: Told = field(default_factory=Told)
    waited: Waited = field(default_factory=Waited)
    objection: Callable[[], StopReason | None] = lambda: None
    pace: Pace = field(default_factory=lambda: Pace(duty=1.0))
    now: datetime = datetime(2026, 3, 10, 4, 0, tzinfo=UTC)

    def throttle(self) -> HealthThrottle:
        return HealthThrottle(
            self.pace,
            self.health,
            self.watch,
            Hours(self.pace, self.now, self.clock),
            Budget(self.pace, None, self.clock),
            Rest(self.pace.duty, self.clock, self.objection),
            self.clock,
            self.objection,
            self.told,
            self.waited,
        )


@pytest.fixture
def bench() -> Bench:
    return Bench()


def windows(throttle: HealthThrottle, clock: FakeClock, count: int, seconds: float) -> None:
    for _ in range(count):
        assert throttle.hold() is None
        with throttle.window():
            clock.sleep(seconds)


@pytest.mark.parametrize(
    ("seconds", "replicated", "asked"),
    [
        (0.25, False, 5),  # every second window
        (1.5, False, 10),  # every window
        (0.001, False, 1),  # 10 ms in all
        (0.02, False, 2),  # 200 ms in all
        (0.001, True, 5),  # a standby has to keep up with each of them
    ],
)
def test_it_asks_every_second_or_every_two_windows_but_hardly_between_small_ones(
    bench: Bench,
    seconds: float,
    replicated: bool,  # noqa: FBT001
    asked: int,
) -> None:
    bench.health.replicated = replicated

    windows(bench.throttle(), bench.clock, 10, seconds)

    assert bench.health.asked == asked


def test_a_stop_is_waited_out_and_counted_and_told(bench: Bench) -> None:
    bench.health.answer = lambda: STOP if bench.clock.now < 10 else GO

    assert bench.throttle().hold() is None

    assert 10 <= bench.clock.now <= 11
    assert bench.waited.as_dict() == {"lag": 10.0}
    assert bench.waited.warnings() == ("waited 10 s for lag: too far",)
    assert bench.told.waits == ["too far"] * 10
    assert bench.told.changes == [("lag", "STOP"), ("lag", "GO")]


def test_patience_ends_and_says_for_what(bench: Bench) -> None:
    bench.health.answer = lambda: STOP
    bench.pace = replace(bench.pace, health=HealthLimits(patience=5 * MINUTE))

    assert bench.throttle().hold() is StopReason.THROTTLED

    assert 300 <= bench.clock.now <= 301
    assert bench.waited.warnings() == ("ended after 300 s of waiting: too far",)


def test_the_time_budget_ends_a_wait_before_patience_does(bench: Bench) -> None:
    bench.health.answer = lambda: STOP
    bench.pace = replace(bench.pace, time_budget=MINUTE)

    assert bench.throttle().hold() is StopReason.THROTTLED
    assert 60 <= bench.clock.now <= 61


@pytest.mark.parametrize("reason", [StopReason.STOPPED, StopReason.PAUSED])
def test_an_objection_is_heard_inside_the_wait_within_a_second(
    bench: Bench, reason: StopReason
) -> None:
    bench.health.answer = lambda: STOP
    bench.objection = lambda: reason if bench.clock.now >= 7.3 else None

    assert bench.throttle().hold() is reason
    assert 7.3 <= bench.clock.now <= 8.3


def test_a_lost_lease_is_heard_inside_the_wait(bench: Bench) -> None:
    bench.health.answer = lambda: STOP

    def lost() -> StopReason | None:
        if bench.clock.now >= 3:
            raise LeaseLost(target="events", reason="Redis was away")
        return None

    bench.objection = lost

    with pytest.raises(LeaseLost):
        bench.throttle().hold()
    assert bench.clock.now <= 4


def test_slow_rests_longer_also_at_full_duty_and_grows_no_windows(bench: Bench) -> None:
    throttle = bench.throttle()
    assert throttle.hold() is None
    assert (throttle.slow, throttle.rest_after(0.25)) == (False, 0.0)

    bench.health.answer = lambda: SLOW
    bench.clock.now = 2.0
    assert throttle.hold() is None

    assert throttle.slow
    assert throttle.rest_after(0.25) == pytest.approx(1.0)
    assert bench.waited.as_dict() == {"lag": 1.0}
    assert bench.waited.warnings() == ()
    assert bench.told.changes == [("lag", "SLOW")]


def test_who_waited_for_us_slows_us_down_for_a_while(bench: Bench) -> None:
    throttle = bench.throttle()
    assert throttle.hold() is None
    bench.watch.yielded_to = "session 42 psql"

    assert throttle.cause(failing(errors.QueryCanceled)) == (
        "yielded to session 42 psql, who waited for us"
    )
    assert throttle.slow
    assert throttle.rest_after(0.25) == pytest.approx(1.0)
    assert bench.waited.as_dict() == {BLOCKED: 1.0}
    bench.clock.now += 10
    assert throttle.hold() is None
    assert not throttle.slow
    assert bench.told.changes == [(BLOCKED, "SLOW"), (BLOCKED, "GO")]


def test_another_error_is_told_in_its_own_words(bench: Bench) -> None:
    throttle = bench.throttle()
    assert throttle.cause(failing(errors.QueryCanceled)) == "the server's word"
    bench.watch.yielded_to = "session 42 psql"
    assert throttle.cause(failing(errors.LockNotAvailable)) == "the server's word"


def test_a_run_leaves_between_two_windows_when_its_hours_end(bench: Bench) -> None:
    bench.pace = replace(bench.pace, only_between=parse_hours("01:00-05:00"))
    throttle = bench.throttle()

    bench.clock.now = 59 * 60 + 59
    assert throttle.hold() is None
    bench.clock.now = 60 * 60
    assert throttle.hold() is StopReason.TIME_BUDGET
    assert bench.waited.warnings() == (
        "outside of only_between 01:00-05:00 (UTC); it opens at 2026-03-11 01:00 +0000",
    )


def test_hours_that_end_inside_a_wait_end_the_run(bench: Bench) -> None:
    bench.health.answer = lambda: STOP
    bench.pace = replace(
        bench.pace, only_between=parse_hours("01:00-04:01"), time_budget=timedelta(hours=1)
    )

    assert bench.throttle().hold() is StopReason.THROTTLED
    assert 60 <= bench.clock.now <= 61


@pytest.mark.parametrize(
    ("started", "closed"),
    [
        ((0, 59, 1), True),  # 59 s before it opens
        ((0, 58, 59), True),  # 61 s before
        ((1, 0, 59), False),
        ((1, 1, 1), False),
        ((4, 59, 1), False),
        ((4, 58, 59), False),
        ((5, 0, 59), True),
        ((5, 1, 1), True),
    ],
)
def test_hours_by_the_databases_clock(started: tuple[int, int, int], closed: bool) -> None:  # noqa: FBT001
    pace = Pace(only_between=MaintenanceHours(parse_hours("01:00-05:00").openings, "UTC"))
    now = datetime(2026, 3, 10, *started, tzinfo=UTC)

    assert (Hours(pace, now, FakeClock()).closed() is not None) is closed


def failing(kind: type[psycopg2.Error]) -> DBAPIError:
    """Return the error SQLAlchemy raises for one of the server's."""

    class Word(kind):  # type: ignore[valid-type, misc]
        pgcode = {errors.QueryCanceled: "57014", errors.LockNotAvailable: "55P03"}[kind]

    return DBAPIError("DELETE", {}, Word("the server's word"))


def test_small_rests_are_longer_when_slow_and_told_with_the_others(bench: Bench) -> None:
    throttle = bench.throttle()
    assert throttle.rests_within(10.0) is None
    bench.health.answer = lambda: SLOW
    assert throttle.hold() is None

    assert throttle.rests_within(10.0) == SmallRests(4.0, 10.0)
    assert throttle.rest_after(0.2, 0.4) == pytest.approx(0.4)
    assert bench.waited.as_dict() == {"lag": 0.8}
