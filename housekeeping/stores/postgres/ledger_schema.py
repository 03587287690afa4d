"""The ledger's schema `housekeeping`: made on first use, or by a DBA beforehand."""

from dataclasses import dataclass

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.policies.errors import LedgerOutdated, LedgerRefused
from housekeeping.stores.postgres.ledger_migrations import MIGRATIONS, TABLES
from housekeeping.stores.postgres.names import quoted
from housekeeping.stores.postgres.statement import Statement, execute

SCHEMA = "housekeeping"
_TABLES = (*TABLES, "migration")
_LEDGER_LOCK = 0x686B_0000_0000  # 'hk': migrations of two first runs do not meet

_STATE = Statement(
    "ledger.state",
    # Two steps: without USAGE on the schema, looking a table up in it is an error.
    sql.SQL(
        """
        SELECT n.oid IS NOT NULL, coalesce(has_schema_privilege(n.oid, 'USAGE'), false),
               coalesce(has_schema_privilege(n.oid, 'CREATE'), false),
               has_database_privilege(current_database(), 'CREATE'),
               current_database(), current_user
        FROM (SELECT 1) AS always LEFT JOIN pg_namespace n ON n.nspname = 'housekeeping'
        """
    ),
)
_MADE = Statement(
    "ledger.made", sql.SQL("SELECT to_regclass('housekeeping.migration') IS NOT NULL")
)
_VERSION = Statement(
    "ledger.version", sql.SQL("SELECT coalesce(max(version), 0) FROM housekeeping.migration")
)
_USABLE = Statement(
    "ledger.usable",
    sql.SQL(
        """
        SELECT coalesce(bool_and(
                   has_table_privilege(format('housekeeping.%%I', name), 'SELECT')
                   AND (name IN ('migration', 'hold') OR (
                        has_table_privilege(format('housekeeping.%%I', name), 'INSERT')
                        AND has_table_privilege(format('housekeeping.%%I', name), 'UPDATE')
                        AND has_table_privilege(format('housekeeping.%%I', name), 'DELETE')))), true)
        FROM unnest(%(tables)s) name
        -- an older ledger has fewer tables until it is migrated
        WHERE to_regclass(format('housekeeping.%%I', name)) IS NOT NULL
        """
    ),
)

_OWNED = Statement(
    "ledger.owned",
    sql.SQL(
        """
        SELECT coalesce(bool_and(pg_has_role(c.relowner, 'USAGE')), true), min(r.rolname::text)
        FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
        WHERE c.relnamespace = 'housekeeping'::regnamespace AND c.relkind = 'r'
        """
    ),
)
# A session that has read the ledger and was left open keeps its tables from being altered; meanwhile
# every run would queue behind us.
_SET_LOCK_TIMEOUT = Statement(
    "ledger.lock_timeout", sql.SQL("SELECT set_config('lock_timeout', '5s', true)")
)


@dataclass(frozen=True)
class _State:
    """What of the ledger is there, and what we may do about the rest."""

    schema: bool
    usable: bool
    may_fill: bool
    may_create: bool
    database: str
    role: str
    made: bool

    def refusal(self) -> LedgerRefused:
        grants = _grants(self.role)
        if self.schema and (self.made or not self.usable):
            remedy = grants
        elif self.schema:
            remedy = f"GRANT USAGE, CREATE ON SCHEMA housekeeping TO {quoted(self.role)}"
        else:
            remedy = f"GRANT CREATE ON DATABASE {quoted(self.database)} TO {quoted(self.role)}"
            remedy += f"\nor, as a role that may: housekeeping check --init, then\n{grants}"
        wanted = "written to" if remedy == grants else "made"
        return LedgerRefused(database=self.database, role=self.role, remedy=remedy, wanted=wanted)


def ensure_ledger(connection: Connection) -> None:
    """Make the ledger where it is missing or old; in a transaction of its own.

    Raises LedgerRefused with the GRANT to ask for where we may not.
    """
    with connection.begin():
        state = _state(connection)
        if state.schema and not state.usable:
            raise state.refusal()
        if state.made and not _may_write(connection):
            raise state.refusal()
        if state.made and _version(connection) >= len(MIGRATIONS):
            return
        if state.made:
            _require_owned(connection, state)
        elif not (state.may_fill if state.schema else state.may_create):
            raise state.refusal()
        _migrate(connection)


def ledger_missing(connection: Connection, *, to_be_made: bool = False) -> bool:
    """Say whether the ledger is still to be made; reads only.

    Raises LedgerRefused when it is there but closed to us; and, if a run is `to_be_made`, when it
    could not be written to, is older than we are and not ours to alter, or is missing and we may not
    make it.
    """
    state = _state(connection)
    if state.schema and not state.usable:
        raise state.refusal()
    if to_be_made and state.made and not _may_write(connection):
        raise state.refusal()
    if to_be_made and state.made and _version(connection) < len(MIGRATIONS):
        _require_owned(connection, state)
    if to_be_made and not state.made and not (state.may_fill if state.schema else state.may_create):
        raise state.refusal()
    return not state.made


def _state(connection: Connection) -> _State:
    schema, usable, may_fill, may_create, database, role = execute(connection, _STATE).one()
    made = usable and bool(execute(connection, _MADE).scalar_one())
    return _State(schema, usable, may_fill, may_create, database, role, made)


def _may_write(connection: Connection) -> bool:
    return bool(execute(connection, _USABLE, tables=list(_TABLES)).scalar_one())


def _require_owned(connection: Connection, state: _State) -> None:
    """Raise LedgerOutdated unless we may alter the ledger's tables, and make others beside them."""
    owned, owner = execute(connection, _OWNED).one()
    if not (owned and state.may_fill):
        raise LedgerOutdated(
            database=state.database,
            role=state.role,
            version=_version(connection),
            wanted=len(MIGRATIONS),
            owner=owner,
            grants=_grants(state.role),
        )


def _version(connection: Connection) -> int:
    return int(execute(connection, _VERSION).scalar_one())


def _migrate(connection: Connection) -> None:
    execute(connection, _SET_LOCK_TIMEOUT)
    lock = Statement("ledger.lock", sql.SQL("SELECT pg_advisory_xact_lock(%(key)s)"))
    execute(connection, lock, key=_LEDGER_LOCK)
    if not _state(connection).schema:  # asked again: another first run may have been quicker
        execute(connection, Statement("ledger.create", sql.SQL("CREATE SCHEMA housekeeping")))
    table = (
        "CREATE TABLE IF NOT EXISTS housekeeping.migration ("
        "version int PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    execute(connection, Statement("ledger.create", sql.SQL(table)))
    applied = Statement(
        "ledger.applied", sql.SQL("INSERT INTO housekeeping.migration (version) VALUES (%(v)s)")
    )
    for version in range(_version(connection), len(MIGRATIONS)):
        for text in MIGRATIONS[version]:
            execute(connection, Statement("ledger.migrate", sql.SQL(text)))
        execute(connection, applied, v=version + 1)


def _grants(role: str) -> str:
    tables = ", ".join(f"housekeeping.{name}" for name in _TABLES)
    return (
        f"GRANT USAGE ON SCHEMA housekeeping TO {quoted(role)}; "
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {quoted(role)}"
    )
