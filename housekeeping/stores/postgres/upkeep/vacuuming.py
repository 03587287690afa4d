"""The VACUUM and ANALYZE we send: beside everybody's work, never in its way."""

from dataclasses import replace
from datetime import timedelta

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.policies.pace import Pace
from housekeeping.stores.postgres.connection import guarded, server_version
from housekeeping.stores.postgres.statement import Statement, execute
from housekeeping.stores.postgres.upkeep.stepping import Ending, StepOutcome, Stepping
from housekeeping.stores.postgres.upkeep.tables import TableState, states_of

_RINGS_SINCE = 160000  # BUFFER_USAGE_LIMIT, SKIP_DATABASE_STATS
_ONLY_SINCE = 180000
_LOOKING = Pace(lock_timeout=timedelta(seconds=1))
# So that a whole table read once does not push everything else out of the server's memory.
_RING = "16MB"
_WORKERS = 2

_HOLDER = Statement(
    "upkeep.lock_holder",
    sql.SQL(
        """
        SELECT format('session %%s %%s holds a %%s', l.pid,
                      coalesce(nullif(a.application_name, ''), a.backend_type, ''), l.mode)
        FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
        WHERE l.locktype = 'relation' AND l.relation = %(oid)s AND l.granted
          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND l.pid IS DISTINCT FROM pg_backend_pid()
          AND l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')
        LIMIT 1
        """
    ),
)


def vacuum(
    stepping: Stepping, connection: Connection, table: TableState, *, freeze: bool = False
) -> StepOutcome:
    """Vacuum a table; `freeze`: all of it, so that its age goes down.

    INDEX_CLEANUP ON: left to itself the server leaves the indexes alone while under 2 % of the
    pages have dead rows, and a queue's head stays a walk over them. TRUNCATE false: giving the end
    of the file back takes a lock that cancels readers on standbys.
    """
    if _autovacuum_is_on(connection, table):
        return StepOutcome(Ending.SKIPPED, "autovacuum is on it")
    ring = f", BUFFER_USAGE_LIMIT '{_RING}', SKIP_DATABASE_STATS true"
    options = f"INDEX_CLEANUP ON, TRUNCATE false, SKIP_LOCKED true, PARALLEL {_WORKERS}" + (
        ring if server_version(connection) >= _RINGS_SINCE else ""
    )
    body = sql.SQL("VACUUM ({}) {}").format(sql.SQL(options), table.identifier)
    ages = {"vacuum_freeze_table_age": "0", "vacuum_multixact_freeze_table_age": "0"}
    if freeze:  # else a table younger than 150 million transactions would stay as old as it is
        stepping = replace(stepping, settings={**stepping.settings, **ages})
    outcome = stepping.run(Statement("upkeep.vacuum", body))
    return _really(connection, table, outcome, "vacuum_count")


def analyze(stepping: Stepping, connection: Connection, table: TableState) -> StepOutcome:
    """Gather a table's statistics anew; of a partitioned one its own, over all partitions."""
    version = server_version(connection)
    ring = f", BUFFER_USAGE_LIMIT '{_RING}'" if version >= _RINGS_SINCE else ""
    # Before 18 the partitions are analyzed along with it.
    only = "ONLY " if table.kind == "p" and version >= _ONLY_SINCE else ""
    body = sql.SQL("ANALYZE (SKIP_LOCKED true{}) {}{}").format(
        sql.SQL(ring), sql.SQL(only), table.identifier
    )
    outcome = stepping.run(Statement("upkeep.analyze", body))
    return _really(connection, table, outcome, "analyze_count")


def refresh_database_age(stepping: Stepping, connection: Connection) -> None:
    """Let the server know how old the database is now; each VACUUM of ours left that out."""
    if server_version(connection) >= _RINGS_SINCE:
        stepping.run(Statement("upkeep.database_age", sql.SQL("VACUUM (ONLY_DATABASE_STATS)")))


def lock_holder(connection: Connection, oid: int) -> str | None:
    """Say who holds a lock that VACUUM, ANALYZE and REINDEX can't have beside theirs."""
    with guarded(connection, _LOOKING, reading=True, any_plan=True):
        found: str | None = execute(connection, _HOLDER, oid=oid).scalar()
    return found


def _autovacuum_is_on(connection: Connection, table: TableState) -> bool:
    return any(now.autovacuum_runs for now in states_now(connection, table))


def states_now(connection: Connection, table: TableState) -> tuple[TableState, ...]:
    """Return a table's state now; nothing when it is gone."""
    with guarded(connection, _LOOKING, reading=True, any_plan=True):
        return states_of(connection, [table.oid])


def _really(
    connection: Connection, table: TableState, outcome: StepOutcome, counter: str
) -> StepOutcome:
    """Look whether it was done: a table passed over is but a warning, in the server's language."""
    if outcome.ending is not Ending.DONE or not outcome.notices:
        return outcome
    now = states_now(connection, table)
    if now and getattr(now[0], counter) > getattr(table, counter):
        return outcome
    if not now:
        return replace(outcome, ending=Ending.FAILED, told="the table is gone", notices=())
    if not now[0].may_maintain:
        return replace(outcome, ending=Ending.FAILED, told=outcome.notices[0], notices=())
    told = lock_holder(connection, table.oid) or outcome.notices[0]
    return replace(outcome, ending=Ending.SKIPPED, told=told, notices=())
