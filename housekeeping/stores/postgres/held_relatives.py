"""Held rows of other tables that would go along, or be changed, with a row of the purged one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.policies.errors import HoldUnusable
from housekeeping.policies.policy import Policy
from housekeeping.stores.postgres.catalog import (
    ForeignKey,
    TableFacts,
    describe_table,
    foreign_keys,
)
from housekeeping.stores.postgres.holds import Holds, StandingHold, holds_over
from housekeeping.stores.postgres.names import apart_from
from housekeeping.stores.postgres.refusals import refuse_hidden
from housekeeping.stores.postgres.statement import identifier


@dataclass(frozen=True, kw_only=True)
class HeldRelative:
    """The way of foreign keys from the purged table down to a table with held rows.

    A row of the purged table stays while a held row is at the end of the way: a cascade would delete
    it, SET NULL would change it.
    """

    keys: tuple[ForeignKey, ...]
    """from the purged table down; each but the last cascades"""
    facts: TableFacts
    """of the table at the end"""
    holds: tuple[StandingHold, ...]

    def guard(self, facts: TableFacts) -> sql.Composable:
        """Return `AND ...`, true for rows no held row hangs on."""
        return sql.SQL(" AND NOT {}").format(self.held(facts))

    def held(self, facts: TableFacts) -> sql.Composable:
        """Return an expression over the purged table, true for rows some held row hangs on."""
        parent = facts.name
        names = [f"hk_held_{number}" for number in range(len(self.keys) - 1)]
        between: list[sql.Composable] = []
        for key, name in zip(self.keys, names, strict=False):
            alias = apart_from(self.facts.name, name)
            between.append(
                sql.SQL("EXISTS (SELECT FROM {} AS {} WHERE {} AND ").format(
                    referring_table(key), identifier(alias), _joined(key, alias, parent)
                )
            )
            parent = alias
        return sql.SQL("{}{}{}").format(
            sql.SQL("").join(between), self._end(parent), sql.SQL(")" * len(between))
        )

    def _end(self, parent: str) -> sql.Composable:
        """Return EXISTS over the last table, under its own name, as users' expressions say it.

        What it is joined with is handed in under names of ours: no column of another table can be
        meant by mistake.
        """
        key, own = self.keys[-1], apart_from(self.facts.name, "hk_own")
        handed = [
            sql.SQL("{} AS {}").format(identifier(parent, column), identifier(f"hk_key_{number}"))
            for number, column in enumerate(key.parent_columns)
        ]
        joined = [
            sql.SQL("{} = {}").format(
                identifier(self.facts.name, column), identifier(own, f"hk_key_{number}")
            )
            for number, column in enumerate(key.columns)
        ]
        held = [hold.held(self.facts) for hold in self.holds]
        return sql.SQL(
            "EXISTS (SELECT FROM (SELECT {handed}) AS {own} CROSS JOIN {table}"
            " WHERE {joined} AND ({held}))"
        ).format(
            handed=sql.SQL(", ").join(handed),
            own=identifier(own),
            table=referring_table(key),
            joined=sql.SQL(" AND ").join(joined),
            held=sql.SQL(" OR ").join(held),
        )

    def levels(self) -> Iterator[tuple[ForeignKey, ...]]:
        """Tell the ways to the tables whose rows have to be locked with the purged ones.

        The first table's own rows are a cascading child's and locked as such, if it is one.
        """
        first = 1 if self.keys[0].cascades else 0
        for depth in range(first, len(self.keys)):
            yield self.keys[: depth + 1]


def way_down(keys: Sequence[ForeignKey], doomed: str, last: str) -> sql.Composable:
    """Return JOINs from rows called `doomed` down some keys; the last table is called `last`."""
    joins: list[sql.Composable] = []
    parent = doomed
    for number, key in enumerate(keys):
        alias = last if number == len(keys) - 1 else f"hk_way_{number}"
        joins.append(
            sql.SQL(" JOIN {} AS {} ON {}").format(
                referring_table(key), identifier(alias), _joined(key, alias, parent)
            )
        )
        parent = alias
    return sql.SQL("").join(joins)


def referring_table(key: ForeignKey) -> sql.Composable:
    """Return the table that refers; a key does not reach what inherits from an ordinary one."""
    name = identifier(key.child_schema, key.child)
    return name if key.child_kind == "p" else sql.SQL("ONLY {}").format(name)


def _joined(key: ForeignKey, child: str, parent: str) -> sql.Composable:
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(identifier(child, own), identifier(parent, column))
        for own, column in zip(key.columns, key.parent_columns, strict=True)
    )


def held_relatives(
    connection: Connection, policy: Policy, facts: TableFacts, holds: Holds
) -> tuple[HeldRelative, ...]:
    """Find every held table the purged one's deletes reach, however deep the cascade.

    Raises HoldUnusable where the cascade leads round in a circle past a held table: how many rows it
    would take can't be said in one look.
    """
    if not holds.standing:
        return ()
    found = _Search(connection, policy, holds, facts)
    found.below(facts.oid, ())
    found.refuse_circles()
    return tuple(found.relatives)


class _Search:
    def __init__(
        self, connection: Connection, policy: Policy, holds: Holds, facts: TableFacts
    ) -> None:
        self._connection = connection
        self._policy = policy
        self._holds = holds
        self._facts = facts
        self._circles: set[int] = set()
        self.relatives: list[HeldRelative] = []

    def below(self, oid: int, way: tuple[ForeignKey, ...]) -> None:
        for key in foreign_keys(self._connection, oid):
            # Rows of the purged table that refer to it keep their parent, unless they are nulled.
            keeps_itself = not way and key.references_itself(oid) and key.cascades
            if key.forbids or keeps_itself:
                continue
            self._reached(key, (*way, key))

    def _reached(self, key: ForeignKey, way: tuple[ForeignKey, ...]) -> None:
        table = describe_table(self._connection, key.child_oid)
        if holds := holds_over(self._connection, self._policy, table, self._holds):
            needed = ("SELECT", "UPDATE")  # PostgreSQL asks for UPDATE to lock a row
            refuse_hidden(self._policy, table, needed)
            self.relatives.append(HeldRelative(keys=way, facts=table, holds=holds))
        if not key.cascades:
            return
        seen = {self._facts.oid, *(each.child_oid for each in way[:-1])}
        if key.child_oid in seen:
            self._circles.add(key.child_oid)
        else:
            self.below(key.child_oid, way)

    def refuse_circles(self) -> None:
        for relative in self.relatives:
            passed = {self._facts.oid, *(key.child_oid for key in relative.keys)}
            if passed & self._circles:
                hold = relative.holds[0]
                raise HoldUnusable(
                    policy=self._policy.name,
                    hold=hold.label,
                    reason=hold.reason,
                    fault=f"the cascade from {self._facts.label} to {relative.facts.label} leads in a "
                    "circle, so a single row may take any number of held ones along",
                    database=self._facts.database,
                    remedy="Declare one of its foreign keys ON DELETE RESTRICT.",
                )
