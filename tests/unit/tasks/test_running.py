"""What a task does with several policies when some of them can't run."""

from collections.abc import Callable

import pytest

from housekeeping.policies.errors import HousekeepingError, PolicyRefused, RunInterrupted
from housekeeping.policies.purge import Age, ExpiryRule, PurgePolicy, TableName
from housekeeping.policies.result import RunResult, StopReason
from settings.durations import parse_duration
from tasks.running import each_policy


def policy(name: str) -> PurgePolicy:
    return PurgePolicy(
        operation="tables.purge",
        name=name,
        database_url="postgresql://localhost/jobs",
        table=TableName(name),
        age=Age(columns=("at",)),
        rules=(ExpiryRule(reason="expired", keep_for=parse_duration("1d")),),
    )


def refusing(name: str, error: HousekeepingError) -> Callable[[PurgePolicy], RunResult]:
    def run(chosen: PurgePolicy) -> RunResult:
        if chosen.name == name:
            raise error
        return RunResult(
            operation=chosen.operation,
            policy=chosen.name,
            run_id="1",
            stop_reason=StopReason.EXHAUSTED,
            total=3,
        )

    return run


@pytest.mark.parametrize(
    "error", [PolicyRefused("no such table"), RunInterrupted(run_id="1", reason="gone")]
)
def test_a_policy_that_can_not_run_does_not_keep_the_next_from_running(
    error: HousekeepingError,
) -> None:
    results, errors = each_policy(refusing("a", error), [policy("a"), policy("b")])

    assert [(r.policy, r.stop_reason, r.total) for r in results] == [
        ("a", StopReason.ERROR, 0),
        ("b", StopReason.EXHAUSTED, 3),
    ]
    assert results[0].error == error.message
    assert errors == [error]


def test_the_refusal_of_a_lone_policy_is_told_as_it_is() -> None:
    with pytest.raises(PolicyRefused, match="no such table"):
        each_policy(refusing("a", PolicyRefused("no such table")), [policy("a")])
