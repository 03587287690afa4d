from dataclasses import replace
from datetime import timedelta

import pytest

from housekeeping.policies.archive import ArchiveTo
from housekeeping.policies.archives import ExportTo
from housekeeping.policies.conflicts import conflicts
from housekeeping.policies.purge import Age, ExpiryRule, PartitionCare, PurgePolicy, TableName

TABLE = "db:5432/app/public.events"


def rule(days: int, value: int | None = None) -> ExpiryRule:
    column = None if value is None else "status"
    return ExpiryRule(
        reason=f"status {value}", keep_for=timedelta(days=days), column=column, value=value
    )


def policy(*rules: ExpiryRule, name: str = "p", archive: str | None = None) -> PurgePolicy:
    return PurgePolicy(
        operation="tables.archive" if archive else "tables.purge",
        name=name,
        database_url="postgresql://db/app",
        table=TableName("events"),
        age=Age(columns=("at",)),
        rules=rules,
        archive=ArchiveTo(prefix=archive) if archive else None,
    )


def fights(one: PurgePolicy, another: PurgePolicy) -> list[tuple[str, str, bool]]:
    found = conflicts([(TABLE, one), (TABLE, another)])
    return [(each.loser.operation, each.winner.operation, each.certain) for each in found]


ARCHIVE_LOSES = [("tables.archive", "tables.purge", True)]


@pytest.mark.parametrize(
    ("deleted_after", "archived_after", "expected"),
    [(30, 90, ARCHIVE_LOSES), (90, 90, ARCHIVE_LOSES), (91, 90, [])],
)
def test_rows_deleted_no_later_than_they_are_archived_are_fought_over(
    deleted_after: int, archived_after: int, expected: list[tuple[str, str, bool]]
) -> None:
    purge, archive = policy(rule(deleted_after)), policy(rule(archived_after), archive="old")
    assert fights(purge, archive) == fights(archive, purge) == expected


def test_rows_of_different_statuses_are_not() -> None:
    assert fights(policy(rule(1, 2)), policy(rule(90, 3), archive="old")) == []


def test_a_rule_for_all_rows_meets_a_rule_for_some() -> None:
    assert fights(policy(rule(1)), policy(rule(90, 3), archive="old")) == ARCHIVE_LOSES


def test_two_archives_of_the_same_rows_fight_once_whatever_their_ages() -> None:
    one, another = policy(rule(10), archive="a"), policy(rule(90), archive="b", name="q")
    assert len(fights(one, another)) == 1


def test_a_condition_of_one_of_them_leaves_it_uncertain() -> None:
    purge = replace(policy(rule(1)), where="tenant = 7")
    assert fights(purge, policy(rule(90), archive="old")) == [
        ("tables.archive", "tables.purge", False)
    ]


def test_other_tables_and_two_deletes_are_no_conflict() -> None:
    purge, archive = policy(rule(1)), policy(rule(90), archive="old")
    assert list(conflicts([(TABLE, purge), ("elsewhere", archive)])) == []
    assert fights(purge, policy(rule(2), name="q")) == []


def test_the_message_names_both_and_the_ways_out() -> None:
    (found,) = conflicts([(TABLE, policy(rule(30))), (TABLE, policy(rule(90), archive="old"))])
    for told in (
        "tables.purge p deletes",
        "after 30 days",
        "tables.archive p",
        "after 90",
        "enabled",
    ):
        assert told in found.message


def exporting_partitions(*rules: ExpiryRule) -> PurgePolicy:
    care = PartitionCare(export=ExportTo(url="/exports"))
    return replace(policy(*rules, name="kept"), partitions=care)


@pytest.mark.parametrize(("deleted_after", "certain"), [(30, True), (90, True), (91, False)])
def test_rows_deleted_past_the_export_of_their_partitions_are_fought_over(
    deleted_after: int, *, certain: bool
) -> None:
    purge, export = policy(rule(deleted_after, 2)), exporting_partitions(rule(90))
    expected = [("tables.purge", "tables.purge", certain)]
    assert fights(purge, export) == fights(export, purge) == expected
    (found,) = conflicts([(TABLE, purge), (TABLE, export)])
    assert found.loser is export
    assert "would be in no export" in found.message


def test_where_both_export_or_one_archives_they_are_not() -> None:
    export = exporting_partitions(rule(90))
    assert fights(export, exporting_partitions(rule(1))) == []
    assert fights(export, policy(rule(1), archive="old")) == []
