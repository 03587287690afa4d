"""When a policy lets a whole partition go unread: only if nothing but a row's age decides."""

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

from housekeeping.policies.allowance import Allowance
from housekeeping.policies.archive import ArchiveTo
from housekeeping.policies.pace import Pace
from housekeeping.policies.purge import (
    Age,
    ExpiryRule,
    KeepNewest,
    KeptBy,
    PartitionCare,
    PurgePolicy,
    TableName,
)

MONTH = timedelta(days=30)
PLAIN = PurgePolicy(
    operation="tables.purge",
    name="plain",
    database_url="postgresql://nowhere",
    table=TableName("events"),
    age=Age(columns=("created_at",)),
    rules=(ExpiryRule(reason="expired", keep_for=MONTH),),
)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"name": "other", "operation": "occurrences.retention"},
        {"pace": Pace(duty=1.0)},
        {"partitions": PartitionCare(grace=MONTH, then="keep")},
        {"vacuum_after_rows": 10_000},
        {"child_names": (("logs", "lines"),)},
        {"allowance": Allowance(share=0.5)},
    ],
)
def test_what_says_nothing_of_rows_does_not_matter(change: dict[str, Any]) -> None:
    assert replace(PLAIN, **change).takes_every_old_row


@pytest.mark.parametrize(
    "change",
    [
        {"rules": (ExpiryRule(reason="done", keep_for=MONTH, column="status", value="done"),)},
        {"rules": (*PLAIN.rules, ExpiryRule(reason="later", keep_for=2 * MONTH))},
        {"where": "true"},
        {"kept_by": (KeptBy(table="holds", column="event", refers_to="id"),)},
        {"archive": ArchiveTo(prefix="old")},
        {"keep_newest": KeepNewest(rows=1)},
    ],
)
def test_what_may_keep_a_row_does(change: dict[str, Any]) -> None:
    assert not replace(PLAIN, **change).takes_every_old_row


def test_a_field_somebody_adds_later_counts_as_keeping_rows_once_it_is_set() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Later(PurgePolicy):
        reserves: tuple[str, ...] = ()

    @dataclass(frozen=True, kw_only=True)
    class Unknowable(PurgePolicy):
        reserves: list[str] = field(default_factory=list)

    given = {**vars(PLAIN)}
    assert Later(**given).takes_every_old_row
    assert not Later(**given, reserves=("a",)).takes_every_old_row
    assert not Unknowable(**given).takes_every_old_row
