"""Budgets and rests, by a clock that only a test moves."""

from dataclasses import replace
from datetime import timedelta

import pytest

from housekeeping.engine.pacing import Budget, Rest
from housekeeping.policies.pace import Pace
from housekeeping.policies.result import StopReason
from housekeeping.stores.postgres.slicing import SmallRests


class FakeClock:
    def __init__(self) -> None:
        self.now = 1_000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.mark.parametrize(
    ("budget", "limit", "left"),
    [(None, None, None), (5, None, 5), (None, 5, 5), (3, 9, 3), (9, 3, 3)],
)
def test_the_smaller_of_row_budget_and_limit_counts(
    budget: int | None, limit: int | None, left: int | None
) -> None:
    assert Budget(replace(Pace(), row_budget=budget), limit, FakeClock()).rows_left(0) == left


def test_a_row_budget_is_spent_with_its_last_row_and_never_below_nothing() -> None:
    budget = Budget(Pace(), 10, FakeClock())

    assert (budget.spent(9), budget.spent(10)) == (None, StopReason.ROW_BUDGET)
    assert budget.rows_left(12) == 0


@pytest.mark.parametrize(("passed", "spent"), [(59, None), (61, StopReason.TIME_BUDGET)])
def test_a_time_budget_is_spent_when_its_time_is_over(
    passed: float, spent: StopReason | None
) -> None:
    clock = FakeClock()
    budget = Budget(replace(Pace(), time_budget=timedelta(seconds=60)), None, clock)

    clock.now += passed

    assert budget.spent(0) is spent


@pytest.mark.parametrize(("duty", "rest"), [(1.0, 0.0), (0.5, 0.4), (0.2, 1.6), (0.01, 5.0)])
def test_a_rest_is_what_the_work_has_earned_and_at_most_five_seconds(
    duty: float, rest: float
) -> None:
    clock = FakeClock()

    assert Rest(duty, clock, lambda: None).after(0.4) == pytest.approx(rest)
    assert sum(clock.slept) == pytest.approx(rest)


def test_what_was_rested_inside_a_transaction_is_not_rested_again() -> None:
    clock = FakeClock()
    rest = Rest(0.2, clock, lambda: None)

    assert rest.after(0.4, 1.0) == pytest.approx(0.6)
    assert rest.after(0.4, 2.0) == 0


def test_small_rests_earn_what_long_ones_do_within_the_transactions_target() -> None:
    assert Rest(0.2, FakeClock(), lambda: None).within(0.25) == SmallRests(4.0, 0.25)


def test_a_run_that_never_rests_takes_no_small_rests_unless_the_database_is_busy() -> None:
    rest = Rest(1.0, FakeClock(), lambda: None)

    assert rest.within(0.25) is None
    assert rest.within(10, slowly=True) == SmallRests(4.0, 10)


def test_a_rest_ends_within_a_quarter_of_a_second_of_an_objection() -> None:
    clock = FakeClock()
    rest = Rest(0.01, clock, lambda: StopReason.STOPPED if clock.now >= 1_001 else None)

    assert 1.0 <= rest.after(1.0) <= 1.25
