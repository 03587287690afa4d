"""Connections to a database we were not written for: short transactions, every guard set LOCAL.

Nothing is set for the session, so a pooler in transaction mode hands the next client a clean one.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from psycopg2 import sql
from sqlalchemy import Connection, create_engine, make_url
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.pool import NullPool

from housekeeping.policies.errors import ConfigurationRefused, ServerTooOld, StoreUnreachable
from housekeeping.policies.pace import Pace
from housekeeping.stores.postgres import raw_text
from housekeeping.stores.postgres.statement import Statement, execute

raw_text.install()

OLDEST_SERVER = 140000
_NAME_BYTES = 63  # NAMEDATALEN - 1: the server cuts application_name there, with a notice

_SET_GUARDS = Statement(
    "transaction.guards",
    sql.SQL(
        """
        SELECT set_config('lock_timeout', %(lock_timeout)s, true),
               set_config('statement_timeout', %(statement_timeout)s, true),
               set_config('idle_in_transaction_session_timeout', '15s', true),
               -- a killed worker's DELETE ran on for 2.9 s and committed; with this it ended in 0.4 s
               set_config('client_connection_check_interval', '500ms', true),
               set_config('TimeZone', 'UTC', true),
               set_config('DateStyle', 'ISO', true),
               -- compiling took 9 ms of a health sample's 11, and 0.2 to 0.4 s of a window with subplans
               set_config('jit', 'off', true),
               -- a window names its range: no plan but that range may be chosen
               set_config('enable_seqscan', %(seqscan)s, true)
        """
    ),
)


def connect(url: str, application_name: str) -> Connection:
    """Open one connection; the caller closes it.

    `application_name` shows in pg_stat_activity, so that a DBA sees who is there.

    Raises StoreUnreachable when nobody answers, ServerTooOld below PostgreSQL 14.
    """
    try:
        engine = create_engine(
            make_url(url).set(drivername="postgresql+psycopg2"),
            poolclass=NullPool,
            # Whatever the role's default: the fence and the second look need each statement's own view.
            isolation_level="READ COMMITTED",
            connect_args={
                "application_name": application_name.encode()[:_NAME_BYTES].decode(errors="ignore"),
                "connect_timeout": 10,
                "tcp_user_timeout": 30_000,
                "keepalives_idle": 30,
                "keepalives_interval": 10,
                "keepalives_count": 3,
            },
        )
    except ArgumentError as error:
        raise ConfigurationRefused(
            "a database_url is not an address SQLAlchemy can read"
        ) from error
    try:
        connection = engine.connect()
    except OperationalError as error:
        raise StoreUnreachable(
            store=f"PostgreSQL at {place(url)}",
            reason=str(error.orig).strip().splitlines()[0],
            setting="database_url",
        ) from error
    version = server_version(connection)
    if version < OLDEST_SERVER:
        connection.close()
        raise ServerTooOld(database=place(url), version=version // 10000)
    return connection


@contextmanager
def connected(url: str, application_name: str) -> Iterator[Connection]:
    """Open a connection for a block."""
    connection = connect(url, application_name)
    try:
        yield connection
    finally:
        connection.close()


def place(url: str) -> str:
    """Return where a URL leads, without user and password: fit for messages and lease names."""
    parts = make_url(url)
    host = parts.host or parts.query.get("host") or "local socket"
    return f"{host}:{parts.port or 5432}/{parts.database or ''}"


def server_version(connection: Connection) -> int:
    """Return the server's version as it counts itself: 180004 is 18.4."""
    driver = connection.connection.driver_connection
    assert driver is not None
    return int(driver.server_version)


@contextmanager
def guarded(
    connection: Connection, pace: Pace, *, reading: bool = False, any_plan: bool = False
) -> Iterator[None]:
    """Run a block in one transaction that can't wait, hang or outlive its client.

    `reading`: the transaction is read-only. `any_plan`: the planner may choose freely, as it must
    for catalog look-ups and estimates.
    """
    with connection.begin():
        if reading:
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        set_guards(connection, pace, seqscan=any_plan)
        yield


def set_guards(connection: Connection, pace: Pace, *, seqscan: bool) -> None:
    """Set the timeouts of the transaction that is open; they end with it."""
    execute(
        connection,
        _SET_GUARDS,
        lock_timeout=f"{_milliseconds(pace.lock_timeout.total_seconds())}ms",
        statement_timeout=f"{_milliseconds(pace.statement_timeout.total_seconds())}ms",
        seqscan="on" if seqscan else "off",
    )


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))
