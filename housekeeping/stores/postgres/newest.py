"""The newest rows of each group stay: a look into an index for every row that has expired."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations, product

from psycopg2 import sql
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from housekeeping.policies.errors import NewestUnserved, PolicyRefused
from housekeeping.policies.purge import Age, PurgePolicy
from housekeeping.stores.postgres.catalog import TableFacts
from housekeeping.stores.postgres.concurrent_builds import build_line
from housekeeping.stores.postgres.conditions import passes, sentence
from housekeeping.stores.postgres.estimates import explain, order_only
from housekeeping.stores.postgres.lookup import column_called
from housekeeping.stores.postgres.names import apart_from, quoted
from housekeeping.stores.postgres.predicate import age_expression
from housekeeping.stores.postgres.statement import Statement, execute, identifier

_COLUMNS = Statement(
    "newest.columns",
    sql.SQL(
        """
        SELECT a.attname::text, a.attnotnull,
               coalesce(array_position(x.indkey::int2[], a.attnum), -1)
        FROM pg_attribute a
        LEFT JOIN pg_index x ON x.indrelid = a.attrelid AND x.indisprimary
        WHERE a.attrelid = %(oid)s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY 3, a.attnum
        """
    ),
)

_ORDINARY = "r"  # pg_class.relkind


@dataclass(frozen=True)
class _Look:
    """How the newest rows of one kind of group are found in an index."""

    nulls: frozenset[str]
    """columns of the group that are NULL"""
    order: sql.Composable
    """from the newest on, as the index yields it"""


@dataclass(frozen=True, kw_only=True)
class Newest:
    """A KeepNewest whose columns were found and which an index serves."""

    rows: int
    age: sql.Composable
    groups: tuple[str, ...]
    key: tuple[str, ...]
    """the primary key, which decides between rows of one age; without one all of them stay"""
    looks: tuple[_Look, ...]
    """for each combination of groups that are NULL; that of none of them stands last"""

    def guard(self, facts: TableFacts) -> sql.Composable:
        """Return `AND ...`, true for rows that enough newer ones of their group outlive.

        `=` can be looked up in an index and IS NOT DISTINCT FROM can't: groups that may be NULL have
        a look of their own for either case.
        """
        *others, plain = self.looks
        if not others:
            return sql.SQL(" AND {}").format(self._outlived(facts, plain))
        branches = [
            sql.SQL("WHEN {} THEN {}").format(_are_null(facts, look), self._outlived(facts, look))
            for look in others
        ]
        return sql.SQL(" AND CASE {} ELSE {} END").format(
            sql.SQL(" ").join(branches), self._outlived(facts, plain)
        )

    def _outlived(self, facts: TableFacts, look: _Look) -> sql.Composable:
        """Compare with the age in the last of the places to keep, which an index tells without the
        heap: 100 places took 0.04 ms a row so, and 0.15 ms by age and key. Those only tell the rest.

        Without groups that age is looked up once a statement, and a second time costs nothing.
        """
        shape = "CASE WHEN {age} < {last} THEN true ELSE {newer} END"
        if not self.groups:
            shape = "CASE WHEN {age} = {last} THEN {newer} ELSE {age} < {last} END"
        last, newer = self._last(facts, look), self._newer(facts, look)
        return sql.SQL(shape).format(age=self.age, last=last, newer=newer)

    def _last(self, facts: TableFacts, look: _Look) -> sql.Composable:
        """Return the age in the last place to keep of a row's group; NULL while there is room."""
        handed, others = self._of_the_group(facts, look)
        own: sql.Composable = sql.SQL("")
        if handed:
            own = sql.SQL("(SELECT {}) AS {} CROSS JOIN ").format(
                sql.SQL(", ").join(handed), identifier(self._own(facts))
            )
        others.append(sql.SQL("{} IS NOT NULL").format(self.age))
        return sql.SQL(
            "(SELECT {age} FROM {own}ONLY {table} WHERE {others} ORDER BY {order}"
            " OFFSET {places} LIMIT 1)"
        ).format(
            age=self.age,
            own=own,
            table=facts.identifier,
            others=sql.SQL(" AND ").join(others),
            order=look.order,
            places=sql.Literal(self.rows - 1),
        )

    def _newer(self, facts: TableFacts, look: _Look) -> sql.Composable:
        """Return EXISTS: the row in the last of the places to keep is newer than this one.

        From the newest on, so that entries of rows that are gone already are not in the way.
        """
        handed, others = self._of_the_group(facts, look)
        handed.append(sql.SQL("{} AS hk_age").format(self.age))
        own = self._own(facts)
        theirs: list[sql.Composable] = [self.age]
        ours: list[sql.Composable] = [identifier(own, "hk_age")]
        for number, name in enumerate(self.key):
            column, alias = identifier(facts.name, name), f"hk_key_{number}"
            handed.append(sql.SQL("{} AS {}").format(column, identifier(alias)))
            theirs.append(column)
            ours.append(identifier(own, alias))
        others.append(
            sql.SQL("({}) > ({})").format(sql.SQL(", ").join(theirs), sql.SQL(", ").join(ours))
        )
        return sql.SQL(
            "EXISTS (SELECT FROM (SELECT {handed}) AS {own} CROSS JOIN ONLY {table} WHERE {others}"
            " ORDER BY {order} OFFSET {places} LIMIT 1)"
        ).format(
            handed=sql.SQL(", ").join(handed),
            own=identifier(own),
            table=facts.identifier,
            others=sql.SQL(" AND ").join(others),
            order=look.order,
            places=sql.Literal(self.rows - 1),
        )

    def _of_the_group(
        self, facts: TableFacts, look: _Look
    ) -> tuple[list[sql.Composable], list[sql.Composable]]:
        """Return what a row hands in of its group, and what others of that group meet.

        It is handed in under names of ours: inside, the table's name means the others, in the user's
        own age expression too.
        """
        handed: list[sql.Composable] = []
        others: list[sql.Composable] = []
        for number, name in enumerate(self.groups):
            column, alias = identifier(facts.name, name), f"hk_group_{number}"
            if name in look.nulls:
                others.append(sql.SQL("{} IS NULL").format(column))
            else:
                handed.append(sql.SQL("{} AS {}").format(column, identifier(alias)))
                others.append(
                    sql.SQL("{} = {}").format(column, identifier(self._own(facts), alias))
                )
        return handed, others

    def _own(self, facts: TableFacts) -> str:
        return apart_from(facts.name, "hk_own")


def newest_on(
    connection: Connection, policy: PurgePolicy, facts: TableFacts, age: Age
) -> Newest | None:
    """Look a policy's KeepNewest up. Raises NewestUnserved where no index serves it."""
    keep = policy.keep_newest
    if keep is None:
        return None
    if facts.kind != _ORDINARY or facts.has_children:
        raise PolicyRefused(
            f"{policy.name}: keep_newest looks at one table, and {facts.label} is in parts, each of "
            "which would keep newest rows of its own. Give a policy to each part, or leave it out"
        )
    groups = tuple(dict.fromkeys(column_called(policy, facts, name) for name in keep.per))
    columns = execute(connection, _COLUMNS, oid=facts.oid).all()
    key = tuple(name for name, _, place in columns if place >= 0)
    nullable = [name for name, not_null, _ in columns if name in groups and not not_null]
    expression = age_expression(age)
    looks = []
    for chosen in product((True, False), repeat=len(nullable)):
        nulls = tuple(name for name, null in zip(nullable, chosen, strict=True) if null)
        order = _order(connection, policy, facts, groups, nulls, expression)
        if order is None:
            raise _unserved(connection, policy, facts, groups, age, key)
        looks.append(_Look(frozenset(nulls), order))
    return Newest(rows=keep.rows, age=expression, groups=groups, key=key, looks=tuple(looks))


def _are_null(facts: TableFacts, look: _Look) -> sql.Composable:
    return sql.SQL(" AND ").join(
        sql.SQL("{} IS NULL").format(identifier(facts.name, name)) for name in sorted(look.nulls)
    )


def _order(
    connection: Connection,
    policy: PurgePolicy,
    facts: TableFacts,
    groups: Sequence[str],
    nulls: tuple[str, ...],
    age: sql.Composable,
) -> sql.Composable | None:
    """Return an order, newest first, that an index yields for one kind of group; None without one.

    The planner knows that a column compared by `=` needs no place in an order; of IS NULL it does
    not, so such columns stand in it as they do in the index.
    """
    for columns in permutations(nulls):
        for directions in product(("DESC", "ASC"), repeat=len(columns)):
            parts = [
                sql.SQL("{} {}").format(identifier(facts.name, column), sql.SQL(direction))
                for column, direction in zip(columns, directions, strict=True)
            ]
            order = sql.SQL(", ").join([*parts, sql.SQL("{} DESC").format(age)])
            try:
                served = _serves(connection, policy, facts, groups, nulls, age, order)
            except DBAPIError as error:
                if passes(error):
                    raise
                raise PolicyRefused(
                    f"{policy.name}: keep_newest_per can't group {facts.label} by "
                    f"{', '.join(groups)}: {sentence(error)}"
                ) from error
            if served:
                return order
    return None


def _serves(
    connection: Connection,
    policy: PurgePolicy,
    facts: TableFacts,
    groups: Sequence[str],
    nulls: Sequence[str],
    age: sql.Composable,
    order: sql.Composable,
) -> bool:
    """Have the planner show whether it reads an index from there on and no row in vain."""
    assert policy.keep_newest is not None
    others: list[sql.Composable] = []
    for name in groups:
        column = identifier(facts.name, name)
        if name in nulls:
            others.append(sql.SQL("{} IS NULL").format(column))
        else:  # a value the planner does not know
            some = sql.SQL("(SELECT {} FROM {} LIMIT 1)").format(column, facts.identifier)
            others.append(sql.SQL("{} = {}").format(column, some))
    some = sql.SQL("(SELECT {} FROM {} LIMIT 1)").format(age, facts.identifier)
    others.append(sql.SQL("{} >= {}").format(age, some))
    body = sql.SQL("SELECT FROM {} WHERE {} ORDER BY {} LIMIT {}").format(
        facts.identifier,
        sql.SQL(" AND ").join(others),
        order,
        sql.Literal(policy.keep_newest.rows),
    )
    with connection.begin_nested(), order_only(connection):
        node = explain(connection, "newest.index", body, {})
    scan = next((p for p in node["Plans"] if p["Parent Relationship"] == "Outer"), node)
    return scan["Node Type"] in ("Index Scan", "Index Only Scan") and "Filter" not in scan


def _unserved(
    connection: Connection,
    policy: PurgePolicy,
    facts: TableFacts,
    groups: Sequence[str],
    age: Age,
    key: Sequence[str],
) -> NewestUnserved:
    """Return the refusal that tells the index to build; its key lets ties be told in the index."""
    if len(age.columns) == 1:
        names = dict.fromkeys([*groups, *age.columns, *key])
        parts: list[sql.Composable] = [identifier(name) for name in names]
    else:
        parts = [identifier(name) for name in groups]
        parts.append(sql.SQL("({})").format(age_expression(age)))
        parts += [identifier(name) for name in key if name not in groups]
    _, _, text = Statement("", sql.SQL(", ").join(parts)).text(connection).partition("*/ ")
    shown = " ".join(text.replace("%%", "%").split())
    return NewestUnserved(
        policy=policy.name,
        table=facts.label,
        columns=shown,
        remedy=build_line(connection, f"{quoted(facts.schema, facts.name)} ({shown})"),
    )
