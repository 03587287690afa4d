from collections.abc import Iterable
from typing import Any

import pytest

from housekeeping.policies.allowance import Allowance
from housekeeping.policies.errors import ConfigurationRefused
from housekeeping.policies.hold import Hold
from housekeeping.policies.policy import Policy
from housekeeping.policies.purge import KeepNewest, PurgePolicy, TableName
from tests.unit.settings.conftest import REQUIRED, Load

EVENTS = '[tables.events]\ntable = "events"\nage = "at"\nkeep_for = "30d"\n'
HOLD = '[holds.suit]\ntable = ["app", "events"]\nwhere = "kind = 7"\nreason = "case 42"\n'


def only(policies: Iterable[Policy]) -> Any:
    (policy,) = policies
    return policy


@pytest.mark.parametrize("share", ["0.2", '"0.2"', '"20%"', '" 20 % "'])
def test_a_share_is_a_number_or_a_percentage(load: Load, share: str) -> None:
    suite = load(REQUIRED + EVENTS + f"allow_share = {share}\n")

    assert only(suite.policies("tables.purge")).allowance == Allowance(share=0.2)


def test_what_a_policy_says_wins_over_what_all_say_key_by_key(load: Load) -> None:
    suite = load(
        REQUIRED + "[safety]\nallow_share = 0.1\nallow_rows = 1000\n" + EVENTS + "allow_share = 1\n"
        "[milvaion]\n"
    )

    purges = [policy for policy in suite.all_policies() if isinstance(policy, PurgePolicy)]
    allowances = {policy.operation: policy.allowance for policy in purges}
    assert allowances == {
        "tables.purge": Allowance(share=1.0, rows=1000),
        "occurrences.retention": Allowance(share=0.1, rows=1000),
        "dead_letters.cleanup": Allowance(share=0.1, rows=1000),
    }


def test_without_a_word_there_is_no_limit(load: Load) -> None:
    policy = only(load(REQUIRED + EVENTS).policies("tables.purge"))

    assert not policy.allowance.given
    assert policy.holds == ()
    assert policy.keep_newest is None


def test_an_allowance_counts_as_it_was_written() -> None:
    assert Allowance(share=0.29).of(100) == 29
    assert Allowance(share=0.07).of(100) == 7
    assert Allowance(share=0.5, rows=3).of(100) == 3
    assert Allowance(share=0.01).of(99) == 0
    assert Allowance().of(100) is None


def test_the_newest_rows_of_each_group_stay(load: Load) -> None:
    suite = load(
        REQUIRED + EVENTS + 'keep_newest = 10\nkeep_newest_per = ["job_id"]\n'
        "[milvaion.retention]\nkeep_newest = 5\n"
    )

    policy: PurgePolicy = only(suite.policies("tables.purge"))
    assert policy.keep_newest == KeepNewest(rows=10, per=("job_id",))
    retention: PurgePolicy = only(suite.policies("occurrences.retention"))
    assert retention.keep_newest == KeepNewest(rows=5)


def test_a_hold_reaches_every_policy_on_its_database_and_no_other(load: Load) -> None:
    other = EVENTS.replace("tables.events", "tables.other")
    suite = load(
        REQUIRED + EVENTS + other + 'database_url = "postgresql://me@db/other"\n[milvaion]\n' + HOLD
    )

    held = {(p.operation, p.name): p.holds for p in suite.all_policies()}
    hold = Hold(name="suit", table=TableName("events", "app"), where="kind = 7", reason="case 42")
    assert held.pop(("tables.purge", "other")) == ()
    assert set(held.values()) == {(hold,)}
    assert suite.idle_holds() == ()


def test_a_database_is_the_same_whoever_connects_and_however_it_is_spelled(load: Load) -> None:
    suite = load(REQUIRED + EVENTS + HOLD + 'database_url = "postgres://lawyer:pw@DB:5432/jobs"\n')

    assert len(only(suite.policies("tables.purge")).holds) == 1


def test_a_hold_nobody_can_meet_is_told_of(load: Load) -> None:
    suite = load(REQUIRED + EVENTS + HOLD + 'database_url = "postgresql://db/elsewhere"\n')

    assert suite.idle_holds() == ("suit",)


def test_without_a_database_for_all_a_hold_is_on_every_one(load: Load) -> None:
    redis = 'redis_url = "redis://cache:6379/0"\n'
    suite = load(redis + EVENTS + 'database_url = "postgresql://db/a"\n' + HOLD)

    assert len(only(suite.policies("tables.purge")).holds) == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (EVENTS + "allow_share = 0", "give a share of the table from 0.01 to 1"),
        (EVENTS + "allow_share = 20", "give a share of the table from 0.01 to 1"),
        (EVENTS + 'allow_share = "120 %"', "give a share of the table from 0.01 to 1"),
        (EVENTS + "allow_share = true", "give a share of the table from 0.01 to 1"),
        (EVENTS + "allow_rows = 0", "allow_rows = 0: give a whole number 1 or more"),
        ("[safety]\nallow_shar = 1\n", 'did you mean "allow_share"?'),
        (EVENTS + "keep_newest = 0", "give a whole number from 1 to 100000"),
        (EVENTS + 'keep_newest_per = ["a"]', "tables.events.keep_newest: missing"),
        (EVENTS + 'keep_newest = 1001\nkeep_newest_per = ["a"]', "is more than 1,000"),
        (EVENTS + "keep_newest = 1\nkeep_newest_per = []", "give one to 4 columns"),
        (EVENTS + 'keep_newest = 1\nkeep_newest_per = [""]', "give a name"),
        ('[holds.x]\ntable = "t"\nreason = "r"\n', "holds.x.where: missing"),
        ('[holds.x]\ntable = "t"\nwhere = "true"\n', "holds.x.reason: missing"),
        ('[holds.x]\nwhere = "true"\nreason = "r"\n', "holds.x.table: missing"),
        ('[holds.x]\ntable = "t"\nwhere = "true"\nreason = " "\n', '= " ": say why, such as'),
        ('[holds.x]\ntable = "t"\nwhere = ""\nreason = "r"\n', "an empty one says nothing"),
        (HOLD + 'schema = "app"\n', "schema: is given twice"),
        ('[archives.old]\nkeep_for = "1d"\nkeep_newest = 5\n', "whole months go"),
    ],
)
def test_what_makes_no_sense_is_refused(load: Load, text: str, told: str) -> None:
    with pytest.raises(ConfigurationRefused) as refused:
        load(REQUIRED + text)

    assert told in refused.value.message
