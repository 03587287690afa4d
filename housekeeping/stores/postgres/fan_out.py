"""What else changes when rows go: the tables that refer to theirs, and theirs in turn."""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection

from housekeeping.stores.postgres.catalog import ForeignKey, TableFacts, foreign_keys
from housekeeping.stores.postgres.relatives import Child
from housekeeping.stores.postgres.storage import Storage, null_share, storage_of

_DEEPEST = 8  # as far down as preflight follows cascades

DELETED = "deleted"
UPDATED = "updated"
KEEPS = "keeps its row"


@dataclass(frozen=True, kw_only=True)
class Branch:
    """A foreign key that points at the purged table, or at a table its cascades lead to."""

    key: ForeignKey
    through: tuple[str, ...]
    """tables between the purged one and this one"""
    effect: str
    per_row: float
    """its rows for each row of the purged table, on average"""
    storage: Storage
    child: Child | None
    """the run deletes and counts them itself; None where the server's triggers do"""

    @property
    def table(self) -> str:
        return f"{self.key.child_schema}.{self.key.child}"


def fan_out(
    connection: Connection, facts: TableFacts, table_rows: int, children: tuple[Child, ...]
) -> tuple[Branch, ...]:
    """Follow the foreign keys that point at a table down their cascades."""
    known = {child.foreign_key.name: child for child in children}
    return tuple(_below(connection, facts.oid, facts.foreign_keys, table_rows, (), known, 1.0))


def _below(
    connection: Connection,
    oid: int,
    keys: tuple[ForeignKey, ...],
    parents: int,
    through: tuple[str, ...],
    known: dict[str, Child],
    so_far: float,
) -> Iterator[Branch]:
    for key in keys:
        if through and key.references_itself(oid):
            continue  # its rows are counted with their table's
        storage = storage_of(connection, key.child_oid)
        referring = storage.rows * (1 - null_share(connection, key.child_oid, key.columns))
        per_row = so_far * referring / max(1, parents)
        branch = Branch(
            key=key,
            through=through,
            effect=_effect(key, oid),
            per_row=per_row,
            storage=storage,
            child=None if through else known.get(key.name),
        )
        yield branch
        if branch.effect == DELETED and len(through) < _DEEPEST:
            yield from _below(
                connection,
                key.child_oid,
                foreign_keys(connection, key.child_oid),
                max(1, storage.rows),
                (*through, branch.table),
                known,
                per_row,
            )


def _effect(key: ForeignKey, oid: int) -> str:
    if key.references_itself(oid) or key.forbids:
        return KEEPS
    return DELETED if key.cascades else UPDATED
