"""The ledger's own tables, schema `housekeeping`: made on first use, or by a DBA beforehand.

run         one row a run: who, what, when, why it stopped, totals
run_window  one row a committed window, written in the transaction that deleted its rows
target      one row a table: the fence number of the run that may write, remembered sizes
"""

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.policies.errors import LedgerRefused
from housekeeping.stores.postgres.statement import Statement, execute

SCHEMA = "housekeeping"
_TABLES = ("run", "run_window", "target", "migration")
_LEDGER_LOCK = 0x686B_0000_0000  # 'hk': migrations of two first runs do not meet

# Append only: a database holds the versions it has been given.
_MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE housekeeping.run (
            id uuid PRIMARY KEY, operation text NOT NULL, policy text NOT NULL, target text NOT NULL,
            task_id text, run_by text NOT NULL, started_at timestamptz NOT NULL, ended_at timestamptz,
            attempts int NOT NULL DEFAULT 1, cutoffs jsonb NOT NULL DEFAULT '{}', stop_reason text,
            success boolean, total bigint, batches int, error text, result jsonb)
        """,
        "CREATE INDEX run_started_at ON housekeeping.run (started_at DESC)",
        "CREATE INDEX run_open ON housekeeping.run (target) WHERE ended_at IS NULL",
        """
        CREATE TABLE housekeeping.run_window (
            run_id uuid NOT NULL, number int NOT NULL, target text NOT NULL, walk text NOT NULL,
            lower text, upper text, done_to text,
            fence bigint NOT NULL, rows bigint NOT NULL, counts jsonb NOT NULL,
            left_behind bigint NOT NULL DEFAULT 0, error text,
            committed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            PRIMARY KEY (run_id, number))
        """,
        "CREATE INDEX run_window_committed_at ON housekeeping.run_window (committed_at)",
        """
        CREATE TABLE housekeeping.target (
            relation text PRIMARY KEY, fence bigint NOT NULL, run_id uuid NOT NULL,
            taken_at timestamptz NOT NULL DEFAULT clock_timestamp(), sizes jsonb NOT NULL DEFAULT '{}')
        """,
    ),
)

_STATE = Statement(
    "ledger.state",
    sql.SQL(
        """
        SELECT to_regclass('housekeeping.migration') IS NOT NULL,
               to_regnamespace('housekeeping') IS NOT NULL,
               has_database_privilege(current_database(), 'CREATE'),
               current_database(), current_user
        """
    ),
)
_VERSION = Statement(
    "ledger.version", sql.SQL("SELECT coalesce(max(version), 0) FROM housekeeping.migration")
)
_USABLE = Statement(
    "ledger.usable",
    sql.SQL(
        """
        SELECT has_schema_privilege('housekeeping', 'USAGE') AND coalesce(bool_and(
                   has_table_privilege(format('housekeeping.%%I', name), 'SELECT')
                   AND (name = 'migration' OR (
                        has_table_privilege(format('housekeeping.%%I', name), 'INSERT')
                        AND has_table_privilege(format('housekeeping.%%I', name), 'UPDATE')
                        AND has_table_privilege(format('housekeeping.%%I', name), 'DELETE')))), true)
        FROM unnest(%(tables)s) name
        """
    ),
)


def ensure_ledger(connection: Connection) -> None:
    """Make the ledger where it is missing or old; in a transaction of its own.

    Raises LedgerRefused with the GRANT to ask for where we may not.
    """
    with connection.begin():
        made, schema, may_create, database, role = execute(connection, _STATE).one()
        if made and not _usable(connection):
            raise LedgerRefused(database=database, role=role, remedy=_grants(role))
        if made and _version(connection) >= len(_MIGRATIONS):
            return
        if not made and not schema and not may_create:
            remedy = f'GRANT CREATE ON DATABASE "{database}" TO "{role}"\n'
            remedy += f"or, as a role that may: housekeeping check --init, then\n{_grants(role)}"
            raise LedgerRefused(database=database, role=role, remedy=remedy)
        _migrate(connection)


def ledger_missing(connection: Connection) -> bool:
    """Say whether the ledger is still to be made; reads only."""
    return not execute(connection, _STATE).one()[0]


def _usable(connection: Connection) -> bool:
    return bool(execute(connection, _USABLE, tables=list(_TABLES)).scalar_one())


def _version(connection: Connection) -> int:
    return int(execute(connection, _VERSION).scalar_one())


def _migrate(connection: Connection) -> None:
    lock = Statement("ledger.lock", sql.SQL("SELECT pg_advisory_xact_lock(%(key)s)"))
    execute(connection, lock, key=_LEDGER_LOCK)
    create = (
        "CREATE SCHEMA IF NOT EXISTS housekeeping",
        "CREATE TABLE IF NOT EXISTS housekeeping.migration ("
        "version int PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())",
    )
    for text in create:
        execute(connection, Statement("ledger.create", sql.SQL(text)))
    applied = Statement(
        "ledger.applied", sql.SQL("INSERT INTO housekeeping.migration (version) VALUES (%(v)s)")
    )
    for version in range(_version(connection), len(_MIGRATIONS)):
        for text in _MIGRATIONS[version]:
            execute(connection, Statement("ledger.migrate", sql.SQL(text)))
        execute(connection, applied, v=version + 1)


def _grants(role: str) -> str:
    return (
        f'GRANT USAGE ON SCHEMA housekeeping TO "{role}"; '
        f'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA housekeeping TO "{role}"'
    )
