"""How full an index's pages are, measured by pgstattuple: reads all of the index."""

from math import isnan

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.stores.postgres.statement import Statement, execute, identifier
from housekeeping.stores.postgres.upkeep.indexes import IndexState
from housekeeping.stores.postgres.upkeep.stepping import Stepping

_WHERE = Statement(
    "upkeep.pgstattuple",
    sql.SQL(
        """
        SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
        JOIN pg_proc p ON p.pronamespace = n.oid AND p.proname = 'pgstatindex'
             AND p.proargtypes = '2205'::oidvector  -- regclass
        WHERE e.extname = 'pgstattuple' AND has_schema_privilege(n.oid, 'USAGE')
          AND has_function_privilege(p.oid, 'EXECUTE')
        """
    ),
)


def measuring_schema(connection: Connection) -> str | None:
    """Return the schema pgstattuple is installed in; None where it is not, or not for us."""
    found: str | None = execute(connection, _WHERE).scalar()
    return found


def measured_bloat(stepping: Stepping, schema: str, index: IndexState) -> float | None:
    """Return which share of a B-tree a rebuild would give back, 0 to 1; None where it was not told.

    Empty and deleted pages count: the index keeps them for entries to come.
    """
    if index.method != "btree":
        return None
    found: list[float | None] = []
    stepping.do(lambda connection: found.append(_measure(connection, schema, index)))
    return found[0] if found else None


def _measure(connection: Connection, schema: str, index: IndexState) -> float | None:
    body = sql.SQL(
        "SELECT leaf_pages, empty_pages + deleted_pages, avg_leaf_density"
        " FROM {}(%(oid)s::oid::regclass)"
    ).format(identifier(schema, "pgstatindex"))
    leaves, unused, density = execute(
        connection, Statement("upkeep.density", body), oid=index.oid
    ).one()
    if not leaves:
        return 1.0 if unused else 0.0
    if isnan(density):
        return None
    full = min(1.0, float(density) / index.fillfactor)
    return max(0.0, 1 - int(leaves) * full / int(leaves + unused))
