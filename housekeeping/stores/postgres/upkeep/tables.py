"""What the statistics say of each table: sizes, dead rows, ages, and what we may do to it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.stores.postgres.connection import server_version
from housekeeping.stores.postgres.names import quoted
from housekeeping.stores.postgres.sizes import total_size
from housekeeping.stores.postgres.statement import Statement, execute, identifier

MAINTAIN_SINCE = 170000


@dataclass(frozen=True, kw_only=True)
class TableState:
    """A table, a materialized view or a partitioned table, at one moment."""

    oid: int
    schema: str
    name: str
    kind: str
    """pg_class.relkind: r, m or p"""
    bytes: int
    """of table, TOAST and indexes"""
    rows: int
    """as the statistics have it"""
    dead_rows: int
    changed_rows: int
    """since the last ANALYZE"""
    analyzed_days_ago: float | None
    """None: never"""
    vacuum_count: int
    analyze_count: int
    frozen_age: int
    """transactions since the oldest row version that is not frozen, its TOAST table included"""
    frozen_limit: int
    """autovacuum_freeze_max_age, as it holds for this table"""
    multixact_age: int
    multixact_limit: int
    autovacuum_from: float
    """dead rows from which on autovacuum would start"""
    autovacuum_off: bool
    autovacuum_days_ago: float | None
    autovacuum_runs: bool
    """it is on the table now"""
    owner: str
    may_maintain: bool
    may_reindex: bool

    @property
    def identifier(self) -> sql.Identifier:
        return identifier(self.schema, self.name)

    @property
    def label(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def frozen_share(self) -> float:
        """How far the way to a forced autovacuum is gone: 1 is there."""
        return max(
            self.frozen_age / max(1, self.frozen_limit),
            self.multixact_age / max(1, self.multixact_limit),
        )


# Owner, or the database's owner, or MAINTAIN since 17; a REINDEX of one index needs the first or last.
_OWNS = "pg_has_role(c.relowner, 'USAGE')"
_OWNS_DATABASE = """
    (SELECT pg_has_role(d.datdba, 'USAGE') FROM pg_database d WHERE d.datname = current_database())
"""
_MAINTAINS = "has_table_privilege(c.oid, 'MAINTAIN')"

_STATES = f"""
    SELECT c.oid, n.nspname AS schema, c.relname AS name, c.relkind AS kind,
           {total_size("c.oid")} AS bytes,
           greatest(coalesce(s.n_live_tup, 0), 0) AS rows,
           coalesce(s.n_dead_tup, 0) AS dead_rows,
           coalesce(s.n_mod_since_analyze, 0) AS changed_rows,
           extract(epoch FROM now() - greatest(s.last_analyze, s.last_autoanalyze))::float8 / 86400
               AS analyzed_days_ago,
           coalesce(s.vacuum_count, 0) AS vacuum_count,
           coalesce(s.analyze_count, 0) AS analyze_count,
           CASE WHEN c.relkind = 'p' THEN 0
                ELSE greatest(age(c.relfrozenxid), age(t.relfrozenxid)) END AS frozen_age,
           least(own.freeze, current_setting('autovacuum_freeze_max_age')::int) AS frozen_limit,
           CASE WHEN c.relkind = 'p' THEN 0
                ELSE greatest(mxid_age(c.relminmxid), mxid_age(t.relminmxid)) END AS multixact_age,
           least(own.multi, current_setting('autovacuum_multixact_freeze_max_age')::int)
               AS multixact_limit,
           least(coalesce(own.threshold, current_setting('autovacuum_vacuum_threshold')::float8)
                 + coalesce(own.scale, current_setting('autovacuum_vacuum_scale_factor')::float8)
                 * greatest(c.reltuples, 0),
                 coalesce(nullif(own.most, -1),
                          nullif(current_setting('autovacuum_vacuum_max_threshold', true)::float8, -1),
                          'infinity')) AS autovacuum_from,
           coalesce(own.off, false) OR current_setting('autovacuum') = 'off' AS autovacuum_off,
           extract(epoch FROM now() - s.last_autovacuum)::float8 / 86400 AS autovacuum_days_ago,
           EXISTS (SELECT FROM pg_stat_progress_vacuum p JOIN pg_stat_activity a USING (pid)
                   WHERE p.relid = c.oid AND p.datname = current_database()
                     AND a.backend_type = 'autovacuum worker') AS autovacuum_runs,
           pg_get_userbyid(c.relowner) AS owner,
           has_schema_privilege(n.oid, 'USAGE') AND ({{vacuums}}) AS may_maintain,
           has_schema_privilege(n.oid, 'USAGE') AND ({{reindexes}}) AS may_reindex
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
    LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid
    CROSS JOIN LATERAL (
        SELECT max(v) FILTER (WHERE o = 'autovacuum_freeze_max_age')::int AS freeze,
               max(v) FILTER (WHERE o = 'autovacuum_multixact_freeze_max_age')::int AS multi,
               max(v) FILTER (WHERE o = 'autovacuum_vacuum_threshold')::float8 AS threshold,
               max(v) FILTER (WHERE o = 'autovacuum_vacuum_scale_factor')::float8 AS scale,
               max(v) FILTER (WHERE o = 'autovacuum_vacuum_max_threshold')::float8 AS most,
               bool_or(NOT v::bool) FILTER (WHERE o = 'autovacuum_enabled') AS off
        FROM pg_options_to_table(c.reloptions) AS option(o, v)) own
    WHERE {{which}}
    ORDER BY dead_rows DESC, 1
"""
_NAMED = "c.oid = ANY(%(oids)s)"
_USERS = """
    c.relkind IN ('r', 'm', 'p') AND c.relpersistence <> 't'
    AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_toast'
"""
_ROLE = Statement("upkeep.role", sql.SQL("SELECT current_user"))
_LEAVES = Statement(
    "upkeep.partitions",
    sql.SQL(
        """
        SELECT p.relid::oid FROM pg_partition_tree(%(oid)s) p JOIN pg_class c ON c.oid = p.relid
        WHERE c.relkind IN ('r', 'm', 'p')
        """
    ),
)


def states_of(connection: Connection, oids: Sequence[int]) -> tuple[TableState, ...]:
    """Return the state of these tables, those with most dead rows first; gone ones are left out."""
    return _states(connection, _NAMED, oids=list(oids))


def all_states(connection: Connection) -> tuple[TableState, ...]:
    """Return the state of every user's table of the database, those with most dead rows first."""
    return _states(connection, _USERS)


def grant_needed(connection: Connection, table: TableState) -> str:
    """Say what the owner has to grant so that we may maintain a table."""
    role = quoted(str(execute(connection, _ROLE).scalar_one()))
    name = quoted(table.schema, table.name)
    remedy = f"GRANT {quoted(table.owner)} TO {role}"
    if server_version(connection) >= MAINTAIN_SINCE:
        remedy = f"GRANT MAINTAIN ON {name} TO {role}"
    return f"{role} may not maintain it. Have its owner run: {remedy}"


def with_partitions(connection: Connection, oid: int) -> tuple[int, ...]:
    """Return a partitioned table and its partitions; any other table alone."""
    found = tuple(int(row[0]) for row in execute(connection, _LEAVES, oid=oid))
    return found or (oid,)


def _states(connection: Connection, which: str, **values: Any) -> tuple[TableState, ...]:
    since_17 = server_version(connection) >= MAINTAIN_SINCE
    maintains = f" OR {_MAINTAINS}" if since_17 else ""
    body = sql.SQL(_STATES).format(
        which=sql.SQL(which),
        vacuums=sql.SQL(f"{_OWNS} OR {_OWNS_DATABASE}{maintains}"),
        reindexes=sql.SQL(f"{_OWNS}{maintains}"),
    )
    rows = execute(connection, Statement("upkeep.table_states", body), **values).mappings()
    return tuple(TableState(**row) for row in rows)
