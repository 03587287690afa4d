"""Which partitions can hold rows of a certain age: the server's own pruning says, and its types."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.stores.postgres.cutoffs import base_type
from housekeeping.stores.postgres.estimates import estimated_rows
from housekeeping.stores.postgres.partitions import Partition, PartitionTree
from housekeeping.stores.postgres.statement import Statement, execute, raw

_PRUNING = Statement(
    "partitions.pruning",
    # The second: a leaf that is asked by its own name is judged by its bounds too.
    sql.SQL(
        """
        SELECT set_config('enable_partition_pruning', 'on', true),
               set_config('constraint_exclusion', 'on', true)
        """
    ),
)
_FILLED = Statement(
    "partitions.filled",
    sql.SQL("SELECT coalesce(sum(pg_relation_size(oid)), 0) > 0 FROM unnest(%(oids)s::oid[]) oid"),
)
# One column: two literals as pg_get_expr writes them, quoted or a number, or MINVALUE and MAXVALUE.
_RANGE = re.compile(r"FOR VALUES FROM \((?P<lower>.*)\) TO \((?P<upper>.*)\)", re.DOTALL)


@dataclass(frozen=True)
class Upper:
    """Where a range partition ends."""

    text: str
    """as the server writes it"""
    rank: int
    """among those it was asked with; 1 is the oldest"""
    expired: bool
    """it is at or before the cutoff: every row below it has expired"""


def leaves_reached(
    connection: Connection,
    tree: PartitionTree,
    age: sql.Composable,
    comparison: str,
    cutoff: object,
) -> frozenset[int]:
    """Return the oids of the leaves that may hold a row whose age compares so.

    What the planner leaves out it has proven to hold none, from bounds and constraints. Rows without
    an age compare as nothing: only what ranges over the age itself is sure to hold none of those.
    A foreign leaf is always among them: planning it may mean asking another server.
    """
    execute(connection, _PRUNING)
    condition = sql.SQL("{} {} %(cutoff)s").format(age, sql.SQL(comparison))
    leaves = tree.leaves()
    local = [leaf for leaf in leaves if leaf.kind != "f"]
    if len(local) == len(leaves):
        reached = _planned(connection, tree.root, condition, cutoff)
    else:
        reached = set().union(*(_planned(connection, leaf, condition, cutoff) for leaf in local))
    return frozenset(
        leaf.oid for leaf in leaves if leaf.kind == "f" or (leaf.schema, leaf.name) in reached
    )


def _planned(
    connection: Connection, table: Partition, condition: sql.Composable, cutoff: object
) -> set[tuple[str, str]]:
    body = sql.SQL("EXPLAIN (VERBOSE, FORMAT JSON) SELECT FROM {} WHERE {}").format(
        table.identifier, condition
    )
    plan = execute(connection, Statement("partitions.reached", body), cutoff=cutoff).scalar_one()
    return set(_tables_in(plan[0]["Plan"]))


def _tables_in(node: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "Relation Name" in node:
        yield node["Schema"], node["Relation Name"]
    for below in node.get("Plans", ()):
        yield from _tables_in(below)


def held_rows(connection: Connection, tree: PartitionTree, node: Partition) -> int:
    """Return how many rows the planner expects in a partition and all below it.

    Asked only where there are any blocks: it takes an empty table for one of ten.
    """
    oids = [leaf.oid for leaf in tree.leaves(node) if leaf.kind == "r"]
    if not execute(connection, _FILLED, oids=oids).scalar_one():
        return 0
    local = [node] if len(oids) == len(tree.leaves(node)) else list(tree.leaves(node))
    return sum(estimated_rows(connection, part.identifier) for part in local if part.kind != "f")


def uppers(
    connection: Connection, partitions: Sequence[Partition], declared: str, cutoff: object
) -> dict[int, Upper]:
    """Return where partitions end that range over one column of a type, by oid.

    Those without an end are left out. The server reads its own bounds back and compares them.
    """
    texts = {part.oid: text for part in partitions if (text := _upper_text(part.bounds))}
    if not texts:
        return {}
    body = sql.SQL(
        """
        SELECT oid, text, rank() OVER (ORDER BY text::{type}), text::{type} <= %(cutoff)s
        FROM unnest(%(oids)s::oid[], %(texts)s::text[]) AS bound (oid, text)
        """
    ).format(type=raw(base_type(declared)))
    statement = Statement("partitions.uppers", body)
    values = {"oids": list(texts), "texts": list(texts.values()), "cutoff": cutoff}
    found = execute(connection, statement, **values)
    return {oid: Upper(text, rank, expired) for oid, text, rank, expired in found}


def _upper_text(bounds: str) -> str | None:
    found = _RANGE.fullmatch(bounds)
    if found is None or found["upper"] == "MAXVALUE":
        return None
    text = found["upper"]
    return text[1:-1].replace("''", "'") if text.startswith("'") else text
