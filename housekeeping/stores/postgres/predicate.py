"""From a policy's words to SQL: when a row is expired, why, and what keeps it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from psycopg2 import sql

from housekeeping.policies.purge import Age, Equals, ExpiryRule, KeptBy
from housekeeping.stores.postgres.catalog import TableFacts
from housekeeping.stores.postgres.cutoffs import AgeType
from housekeeping.stores.postgres.held_relatives import HeldRelative
from housekeeping.stores.postgres.holds import StandingHold
from housekeeping.stores.postgres.names import apart_from
from housekeeping.stores.postgres.statement import identifier, raw


@dataclass(frozen=True, kw_only=True)
class Keeper:
    """A KeptBy whose table and columns were found."""

    facts: TableFacts
    kept_by: KeptBy
    ages: Mapping[str, AgeType] = field(default_factory=dict)
    not_itself: bool = False
    """the keeper is the purged table, and a row that refers to itself keeps nothing"""


class Guard(Protocol):
    """Something that keeps rows of the purged table."""

    def guard(self, facts: TableFacts) -> sql.Composable:
        """Return `AND ...`, true for rows it does not keep."""


@dataclass(frozen=True)
class Predicate:
    """Which rows of a table go: bound values and quoted names only."""

    expired: sql.Composable
    """one boolean expression"""
    kept: sql.Composable
    """`AND NOT EXISTS ...` for each keeper, or nothing"""
    reason: sql.Composable
    """the number of the rule a row expired by"""
    values: Mapping[str, Any]
    reasons: tuple[str, ...]
    held: sql.Composable | None = None
    """true for rows a hold keeps, whether or not they expired; None without holds"""
    relatives: tuple[HeldRelative, ...] = ()
    """other tables' rows that have to be locked before a row goes: they may come to be held"""

    @property
    def condition(self) -> sql.Composable:
        return sql.SQL("{}{}").format(self.expired, self.kept)


class PredicateBuilder:
    """Builds predicates over one table, with the cutoffs of one run."""

    def __init__(
        self,
        facts: TableFacts,
        age: Age,
        age_type: AgeType,
        where: str | None,
        keepers: Sequence[Keeper],
        now: datetime,
        newest: Guard | None = None,
        holding: Sequence[StandingHold | HeldRelative] = (),
    ) -> None:
        self._facts = facts
        self._age = age
        self._age_type = age_type
        self._where = where
        self._keepers = keepers
        self._now = now
        self._newest = newest
        self._holding = holding

    def build(self, rules: Sequence[ExpiryRule], cutoffs: Mapping[str, datetime]) -> Predicate:
        """Return the predicate of some of the policy's rules."""
        values: dict[str, Any] = {}
        age = age_expression(self._age)
        tests: list[sql.Composable] = []
        for number, rule in enumerate(rules):
            values[f"cutoff_{number}"] = self._age_type.at(cutoffs[rule.reason])
            test: sql.Composable = sql.SQL("{} < {}").format(
                age, sql.Placeholder(f"cutoff_{number}")
            )
            if rule.column is not None:
                values[f"value_{number}"] = rule.value
                test = sql.SQL("{} = {} AND {}").format(
                    identifier(rule.column), sql.Placeholder(f"value_{number}"), test
                )
            tests.append(sql.SQL("({})").format(test))
        expired: sql.Composable = sql.SQL("({})").format(sql.SQL(" OR ").join(tests))
        if self._where is not None:
            expired = sql.SQL("{} AND (\n{}\n)").format(expired, raw(self._where))
        return Predicate(
            expired=expired,
            kept=self._kept(values),
            reason=_case(tests),
            values=values,
            reasons=tuple(rule.reason for rule in rules),
            held=self._held(),
            relatives=tuple(each for each in self._holding if isinstance(each, HeldRelative)),
        )

    def _kept(self, values: dict[str, Any]) -> sql.Composable:
        guards = [
            self._guard(number, keeper, values) for number, keeper in enumerate(self._keepers)
        ]
        # What looks furthest stands last: it is asked of rows nothing else keeps.
        others: list[Guard] = [*self._holding, *([self._newest] if self._newest else [])]
        return sql.SQL("").join([*guards, *(each.guard(self._facts) for each in others)])

    def _held(self) -> sql.Composable | None:
        if not self._holding:
            return None
        held = [each.held(self._facts) for each in self._holding]
        return sql.SQL("({})").format(sql.SQL(" OR ").join(held))

    def _guard(self, number: int, keeper: Keeper, values: dict[str, Any]) -> sql.Composable:
        kept_by = keeper.kept_by
        alias = apart_from(self._facts.name, "hk_keeper")
        conditions: list[sql.Composable] = []
        for place, condition in enumerate(kept_by.while_any):
            key = f"keeper_{number}_{place}"
            column = identifier(alias, condition.column)
            if isinstance(condition, Equals):
                values[key] = list(condition.values)
                conditions.append(sql.SQL("{} = ANY({})").format(column, sql.Placeholder(key)))
            else:
                kind = keeper.ages[condition.column]
                values[key] = kind.at(self._now - condition.keep_for)
                conditions.append(sql.SQL("{} >= {}").format(column, sql.Placeholder(key)))
        return sql.SQL(
            " AND NOT EXISTS (SELECT FROM {keeper} AS {alias}"
            " WHERE {column} = {own}{another}{conditions})"
        ).format(
            another=sql.SQL(" AND {} <> {}").format(
                identifier(alias, "ctid"), identifier(self._facts.name, "ctid")
            )
            if keeper.not_itself
            else sql.SQL(""),
            keeper=keeper.facts.identifier,
            alias=identifier(alias),
            column=identifier(alias, kept_by.column),
            own=identifier(self._facts.name, kept_by.refers_to),
            conditions=sql.SQL(" AND ({})").format(sql.SQL(" OR ").join(conditions))
            if conditions
            else sql.SQL(""),
        )


def age_expression(age: Age) -> sql.Composable:
    """Return the age of a row as SQL: a column, the first of several, or a user's expression."""
    if age.expression is not None:
        return sql.SQL("(\n{}\n)").format(raw(age.expression))
    columns = [identifier(column) for column in age.columns]
    if len(columns) == 1:
        return columns[0]
    return sql.SQL("coalesce({})").format(sql.SQL(", ").join(columns))


def _case(tests: Sequence[sql.Composable]) -> sql.Composable:
    if len(tests) == 1:
        return sql.SQL("0")
    branches = [
        sql.SQL("WHEN {} THEN {}").format(test, sql.Literal(number))
        for number, test in enumerate(tests)
    ]
    return sql.SQL("CASE {} END").format(sql.SQL(" ").join(branches))
