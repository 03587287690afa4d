"""Which columns archived rows are put back into, and what of the source table stands in the way."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.policies.errors import RestoreRefused
from housekeeping.stores.postgres.archive_layout import ARCHIVED_AT, ARCHIVED_BY
from housekeeping.stores.postgres.archives.rows import TextColumn, text_columns
from housekeeping.stores.postgres.catalog import TableFacts
from housekeeping.stores.postgres.names import quoted
from housekeeping.stores.postgres.statement import Statement, execute, identifier

_VARCHAR = re.compile(r"character varying(?:\(([0-9]+)\))?")
_INTEGERS = ("smallint", "integer", "bigint")

_PARENTS = Statement(
    "archives.parents",
    sql.SQL(
        """
        SELECT n.nspname::text, c.relname::text,
               ARRAY(SELECT a.attname::text FROM unnest(con.conkey) WITH ORDINALITY k(num, pos)
                     JOIN pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = k.num
                     ORDER BY k.pos),
               ARRAY(SELECT a.attname::text FROM unnest(con.confkey) WITH ORDINALITY k(num, pos)
                     JOIN pg_attribute a ON a.attrelid = con.confrelid AND a.attnum = k.num
                     ORDER BY k.pos),
               con.confrelid = con.conrelid
        FROM pg_constraint con JOIN pg_class c ON c.oid = con.confrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE con.contype = 'f' AND con.conrelid = %(oid)s ORDER BY con.conname
        """
    ),
)
_REFUSES_TWINS = Statement(
    "archives.refuses_twins",
    # An index that lets no row in twice. ON CONFLICT is an error where any is checked at the end.
    sql.SQL(
        """
        SELECT NOT EXISTS (SELECT FROM pg_index WHERE indrelid = %(oid)s AND NOT indimmediate)
          AND EXISTS (
            SELECT FROM pg_index i
            WHERE i.indrelid = %(oid)s AND i.indisunique AND i.indisvalid
              AND i.indpred IS NULL AND i.indexprs IS NULL
              AND NOT EXISTS (SELECT FROM unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) k
                              JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k
                              WHERE NOT a.attnotnull OR NOT a.attname = ANY(%(filled)s::text[])))
        """
    ),
)
_INSERT_SIDE = Statement(
    "archives.insert_side",
    sql.SQL(
        """
        SELECT has_table_privilege(%(oid)s, 'INSERT'), current_user,
               ARRAY(SELECT t.tgname::text FROM pg_trigger t
                     WHERE t.tgrelid = %(oid)s AND NOT t.tgisinternal AND t.tgenabled <> 'D'
                       AND t.tgtype & 4 <> 0),
               ARRAY(SELECT r.rulename::text FROM pg_rewrite r
                     WHERE r.ev_class = %(oid)s AND r.ev_type = '3')
        """
    ),
)


@dataclass(frozen=True)
class Parent:
    """A table the source's rows refer to: without its row, theirs can't be put back."""

    schema: str
    table: str
    columns: tuple[str, ...]
    """of the source"""
    parent_columns: tuple[str, ...]
    itself: bool

    def present(self, rows: str) -> sql.Composable:
        """Return the condition that a row called `rows` refers to nothing, or to what is there."""
        nulls = [sql.SQL("{} IS NULL").format(identifier(rows, each)) for each in self.columns]
        pairs = [
            sql.SQL("hk_parent.{} = {}").format(identifier(there), identifier(rows, here))
            for here, there in zip(self.columns, self.parent_columns, strict=True)
        ]
        return sql.SQL("({} OR EXISTS (SELECT FROM {} AS hk_parent WHERE {}))").format(
            sql.SQL(" OR ").join(nulls),
            identifier(self.schema, self.table),
            sql.SQL(" AND ").join(pairs),
        )


@dataclass(frozen=True)
class Destination:
    """A source table that archived rows can be put back into."""

    facts: TableFacts
    columns: tuple[TextColumn, ...]
    """to be filled, in their order; the others the server fills"""
    key: tuple[str, ...]
    """tells rows apart here and in the archive; empty where nothing does, or the table takes twins"""
    parents: tuple[Parent, ...]
    warnings: tuple[str, ...]

    @property
    def refers_to_itself(self) -> bool:
        return any(parent.itself for parent in self.parents)


def destination(
    connection: Connection,
    facts: TableFacts,
    archived: Mapping[str, str],
    key: Sequence[str],
    *,
    drop_columns: bool,
) -> Destination:
    """Match archived columns (name to type) with the source's; inside a reading transaction.

    Raises RestoreRefused for what would lose a value, or could not be inserted.
    """
    if facts.kind not in ("r", "p"):
        raise _refused(facts, "it is no table any more")
    may_insert, role, triggers, rules = execute(connection, _INSERT_SIDE, oid=facts.oid).one()
    if not may_insert:
        raise _may_not_insert(facts, role)
    if rules:
        raise _refused(facts, f"the rule {rules[0]} rewrites INSERT on it; drop the rule first")
    columns = {column.name: column for column in text_columns(connection, facts.oid)}
    wanted = {
        name: type_ for name, type_ in archived.items() if name not in (ARCHIVED_AT, ARCHIVED_BY)
    }
    lost = [name for name in wanted if name not in columns]
    if lost and not drop_columns:
        told = f"it has no column {', '.join(map(repr, lost))} any more; --drop-columns leaves out"
        raise _refused(facts, f"{told} what the archive holds there")
    _refuse_changed_types(facts, wanted, columns)
    _refuse_unfilled(facts, wanted, columns)
    filled = tuple(columns[n] for n in wanted if n in columns and not columns[n].generated)
    parents = tuple(
        Parent(row[0], row[1], tuple(row[2]), tuple(row[3]), row[4])
        for row in execute(connection, _PARENTS, oid=facts.oid)
    )
    warnings = [f"trigger {name} on {facts.label} fires for every row" for name in triggers]
    if lost:
        warnings.append(_left_out(facts, lost))
    names = {column.name for column in filled}
    told_apart = execute(connection, _REFUSES_TWINS, oid=facts.oid, filled=list(names)).scalar_one()
    usable = tuple(key) if told_apart and names.issuperset(key) else ()
    return Destination(facts, filled, usable, parents, tuple(warnings))


def _may_not_insert(facts: TableFacts, role: str) -> RestoreRefused:
    grant = f"GRANT INSERT ON {quoted(facts.schema, facts.name)} TO {quoted(role)}"
    return _refused(facts, f"{role} may not INSERT into it. Have its owner run: {grant}")


def _left_out(facts: TableFacts, lost: Sequence[str]) -> str:
    told = f"{', '.join(lost)} of the archive is left out"
    return f"{facts.label}: {told}; rows that leave a dated table lose it for good"


def _refuse_changed_types(
    facts: TableFacts, archived: Mapping[str, str], columns: Mapping[str, TextColumn]
) -> None:
    for name, type_ in archived.items():
        column = columns.get(name)
        if column is not None and not column.generated and not _holds(column.type, type_):
            raise _refused(
                facts,
                f"its column {name!r} is {column.type} now and was {type_} when the rows were "
                "archived; values could change. Alter it back for as long as this takes",
            )


def _refuse_unfilled(
    facts: TableFacts, archived: Mapping[str, str], columns: Mapping[str, TextColumn]
) -> None:
    for column in columns.values():
        given = column.name in archived or column.generated or column.has_default
        if column.not_null and not given:
            raise _refused(
                facts,
                f"its column {column.name!r} came after these rows were archived, is NOT NULL and "
                "has no default. Give it one",
            )


def _holds(now: str, then: str) -> bool:
    """Say whether every value of a type is the same value in another one."""
    if now in (then, "text"):
        return now == then or _VARCHAR.fullmatch(then) is not None
    if now in _INTEGERS and then in _INTEGERS:
        return _INTEGERS.index(now) >= _INTEGERS.index(then)
    wider, narrower = _VARCHAR.fullmatch(now), _VARCHAR.fullmatch(then)
    if wider is None or narrower is None:
        return False
    return wider[1] is None or (narrower[1] is not None and int(wider[1]) >= int(narrower[1]))


def _refused(facts: TableFacts, reason: str) -> RestoreRefused:
    return RestoreRefused(what=f"what was archived of {facts.label}", reason=reason)
