"""pg_partman: a table whose partitions it retires itself is left to it."""

from collections.abc import Iterable

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.policies.errors import PrivilegeMissing
from housekeeping.stores.postgres.names import quoted
from housekeeping.stores.postgres.statement import Statement, execute, identifier

# Looked up by its shape: it lives in any schema, and where a provider allows no extension it is
# installed as plain tables.
_CONFIGS = Statement(
    "partman.configs",
    sql.SQL(
        """
        SELECT n.nspname, c.relname,
               has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'),
               current_user
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relname = 'part_config' AND c.relkind = 'r'
          AND 2 = (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = c.oid
                   AND NOT a.attisdropped AND a.attname IN ('parent_table', 'retention'))
        """
    ),
)


def partmans_word(
    connection: Connection, policy: str, labels: Iterable[str]
) -> tuple[str, str] | None:
    """Return the table of these that pg_partman retires partitions of, and its retention.

    Raises PrivilegeMissing where we may not read what pg_partman is told: then nobody knows.
    """
    tables = list(labels)
    for schema, name, readable, role in execute(connection, _CONFIGS).all():
        if not readable:
            raise PrivilegeMissing(
                policy=policy,
                role=role,
                privilege="SELECT (pg_partman may retire these partitions)",
                table=f"{schema}.{name}",
                remedy=f"GRANT USAGE ON SCHEMA {quoted(schema)} TO {quoted(role)}; "
                f"GRANT SELECT ON {quoted(schema, name)} TO {quoted(role)}",
            )
        body = sql.SQL(
            "SELECT parent_table::text, retention::text FROM {}"
            " WHERE parent_table::text = ANY(%(tables)s) AND retention IS NOT NULL LIMIT 1"
        ).format(identifier(schema, name))
        found = execute(connection, Statement("partman.retention", body), tables=tables).first()
        if found is not None:
            return found[0], found[1]
    return None
