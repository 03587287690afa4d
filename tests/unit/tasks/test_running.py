"""What a task does with several policies when some of them can't run."""

from collections.abc import Callable

import pytest
from celery import Task

from housekeeping.policies.errors import (
    ConfigurationRefused,
    HousekeepingError,
    PolicyRefused,
    RunInterrupted,
)
from housekeeping.policies.purge import Age, ExpiryRule, PurgePolicy, TableName
from housekeeping.policies.result import RunResult, StopReason
from settings.durations import parse_duration
from tasks.running import (
    Asked,
    each_policy,
    perform,
    perform_inline,
    refuse_without_effect,
)


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


@pytest.mark.parametrize("operation", ["database.maintain", "database.drop_expired_archives"])
@pytest.mark.parametrize("asked", [Asked(exact=True, dry_run=True), Asked(confirmed=True)])
def test_what_is_about_rows_is_refused_where_none_are_taken(operation: str, asked: Asked) -> None:
    with pytest.raises(ConfigurationRefused, match=f"tasks.{operation} takes none: leave it out"):
        refuse_without_effect(operation, asked)


def test_a_task_refuses_it_before_it_looks_at_anything() -> None:
    with pytest.raises(ConfigurationRefused, match="takes none: leave it out"):
        perform(Task(), "database.maintain", None, confirmed=True)


def test_whoever_asks_for_an_exact_count_and_forgets_the_dry_run_deletes_nothing() -> None:
    with pytest.raises(ConfigurationRefused, match="give dry_run=True as well"):
        perform_inline("tables.purge", (), None, exact=True)


@pytest.mark.parametrize(
    "asked", [Asked(), Asked(exact=True, dry_run=True), Asked(exact=False), Asked(confirmed=True)]
)
def test_what_has_an_effect_is_not_refused(asked: Asked) -> None:
    refuse_without_effect("tables.purge", asked)
