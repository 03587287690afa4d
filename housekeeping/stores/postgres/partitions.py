"""A partitioned table as the catalog describes it: its tree, its keys, and who may touch what."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.stores.postgres.statement import Statement, execute, identifier

_TREE = Statement(
    "partitions.tree",
    # Not pg_partition_tree: it locks every partition, and hides one whose detaching was cut short.
    sql.SQL(
        """
        WITH RECURSIVE tree AS (
            SELECT %(root)s::oid AS oid, 0::oid AS parent, false AS pending
            UNION ALL
            SELECT i.inhrelid, i.inhparent, i.inhdetachpending
            FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid WHERE NOT t.pending)
        SELECT t.oid, t.parent, t.pending, n.nspname, c.relname, c.relkind,
               coalesce(pg_get_expr(c.relpartbound, 0), ''),
               coalesce(above.partdefid = c.oid, false), p.partstrat,
               -- an operator class of its own could sort another way than `<` does
               CASE WHEN p.partnatts = 1 AND o.opcdefault THEN a.attname END,
               pg_has_role(c.relowner, 'USAGE'),
               EXISTS (SELECT FROM pg_constraint f
                       WHERE f.contype = 'f' AND f.confrelid = c.oid),
               ARRAY(SELECT g.tgname::text FROM pg_trigger g
                     WHERE g.tgrelid = c.oid AND NOT g.tgisinternal AND g.tgenabled <> 'D'
                       AND g.tgtype & 8 <> 0 AND g.tgtype & 1 <> 0),
               ARRAY(SELECT g.tgname::text FROM pg_trigger g
                     WHERE g.tgrelid = c.oid AND NOT g.tgisinternal AND g.tgenabled <> 'D'
                       AND g.tgtype & 8 <> 0 AND g.tgtype & 1 = 0)
        FROM tree t JOIN pg_class c ON c.oid = t.oid JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_partitioned_table p ON p.partrelid = c.oid
        LEFT JOIN pg_partitioned_table above ON above.partrelid = t.parent
        LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = p.partattrs[0]
        LEFT JOIN pg_opclass o ON o.oid = p.partclass[0]
        """
    ),
)
_SIZE = Statement(
    "partitions.size",
    sql.SQL(
        "SELECT coalesce(sum(pg_total_relation_size(oid)), 0) FROM unnest(%(oids)s::oid[]) oid"
    ),
)


_PUBLICATION = Statement(
    "partitions.publication",
    sql.SQL(
        """
        SELECT p.pubname FROM pg_publication p JOIN pg_publication_tables t USING (pubname)
        WHERE p.pubdelete AND t.schemaname || '.' || t.tablename = ANY(%(tables)s)
        ORDER BY 1 LIMIT 1
        """
    ),
)


@dataclass(frozen=True, kw_only=True)
class Partition:
    """A table of a partition tree: the root, a level between, or a leaf that holds rows."""

    oid: int
    parent: int
    """oid of the table it is attached to; 0 for the root"""
    pending: bool
    """its detaching was cut short: queries no longer see it"""
    schema: str
    name: str
    kind: str
    """pg_class.relkind"""
    bounds: str
    """as ATTACH PARTITION takes them: FOR VALUES ..."""
    default: bool
    strategy: str | None
    """how it is partitioned itself: r range, l list, h hash; None for a leaf"""
    key: str | None
    """the one column it is partitioned by; None where there are several, or an expression"""
    owned: bool
    """we may alter it"""
    referenced: bool
    """a foreign key points at it"""
    row_triggers: tuple[str, ...]
    """fire for every deleted row"""
    statement_triggers: tuple[str, ...]
    """fire for a DELETE that names it"""

    @property
    def label(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def identifier(self) -> sql.Identifier:
        return identifier(self.schema, self.name)


@dataclass(frozen=True)
class PartitionTree:
    """A partitioned table and everything below it, without what is being detached."""

    nodes: Mapping[int, Partition]
    root: Partition
    pending: tuple[Partition, ...]

    @cached_property
    def _children(self) -> Mapping[int, tuple[Partition, ...]]:
        below: dict[int, list[Partition]] = {}
        for node in self.nodes.values():
            below.setdefault(node.parent, []).append(node)
        return {oid: tuple(sorted(nodes, key=_place)) for oid, nodes in below.items()}

    def children(self, node: Partition) -> tuple[Partition, ...]:
        """Return the tables attached to one, in an order that does not change between runs."""
        return self._children.get(node.oid, ())

    def parent(self, node: Partition) -> Partition:
        return self.nodes[node.parent]

    def subtree(self, node: Partition) -> Iterator[Partition]:
        """Yield a table and everything below it."""
        yield node
        for child in self.children(node):
            yield from self.subtree(child)

    def leaves(self, node: Partition | None = None) -> tuple[Partition, ...]:
        """Return the tables that hold rows, or could."""
        return tuple(part for part in self.subtree(node or self.root) if part.kind != "p")

    def default_of(self, node: Partition) -> Partition | None:
        """Return the DEFAULT partition of a table."""
        return next((child for child in self.children(node) if child.default), None)


def _place(node: Partition) -> tuple[bool, str, str, str]:
    return node.default, node.bounds, node.schema, node.name


def partition_tree(connection: Connection, oid: int) -> PartitionTree:
    """Return a partitioned table's tree as the catalog has it now; takes no lock on any of it."""
    found = [
        Partition(
            oid=row[0],
            parent=row[1],
            pending=row[2],
            schema=row[3],
            name=row[4],
            kind=row[5],
            bounds=row[6],
            default=row[7],
            strategy=row[8],
            key=row[9],
            owned=row[10],
            referenced=row[11],
            row_triggers=tuple(row[12]),
            statement_triggers=tuple(row[13]),
        )
        for row in execute(connection, _TREE, root=oid)
    ]
    nodes = {node.oid: node for node in found if not node.pending}
    return PartitionTree(nodes, nodes[oid], tuple(node for node in found if node.pending))


def bytes_of(connection: Connection, tree: PartitionTree, node: Partition) -> int:
    """Return what a partition takes on disk, its indexes and what lies below it included."""
    oids = [part.oid for part in tree.subtree(node)]
    return int(execute(connection, _SIZE, oids=oids).scalar_one())


def publishing_deletes(connection: Connection, tree: PartitionTree) -> str | None:
    """Return a publication that publishes deletes of the table or a partition; None where none does."""
    tables = [node.label for node in tree.nodes.values()]
    found: str | None = execute(connection, _PUBLICATION, tables=tables).scalar()
    return found
