"""Where contenders meet: servers that really write to disk, and the same table for each of them.

The table is made once, in a database of its own, and every contender gets a copy of that
database's files: same bytes, same hint bits, same statistics, nothing left over from the one before.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from types import TracebackType
from typing import Any, Self

import psycopg2

from embedded.postgresql import PostgresServer
from embedded.valkey import ValkeyServer
from housekeeping.stores.postgres.connection import connected
from housekeeping.stores.postgres.ledger_schema import ensure_ledger

EXPIRED_SHARE = 0.52
_STEP = timedelta(seconds=4)  # between two rows: 2 M rows are the last 93 days
_COPY_STRATEGY_SINCE = 150000

# What a server in production has, and nothing in the background that would hit one contender only:
# no autovacuum, and WAL enough that no checkpoint begins by itself.
_SETTINGS: dict[str, str | int] = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # A quarter of it holds the table, so that a sequential scan begins at the front: above that, scans
    # take up where the last one stopped (synchronize_seqscans), and the loop rides on it.
    "shared_buffers": "4GB",
    "autovacuum": "off",
    "max_wal_size": "16GB",
    "min_wal_size": "4GB",
    "checkpoint_timeout": "1h",
}
_EVENTS = """
    CREATE TABLE events AS
    SELECT i AS id, now() - {age} * %(step)s AS created_at, (i %% 5)::int AS status,
           gen_random_uuid() AS correlation_id, repeat(md5(i::text), 3) AS payload
    FROM generate_series(1::bigint, %(rows)s) AS i
"""
_IN_ORDER = "(%(rows)s - i)"
_STREWN = "(i * 7919 %% %(rows)s)"  # a prime: every age once, neighbours far apart
# What a job scheduler keeps: a run, and two lines it wrote.
_FAMILIES = (
    _EVENTS.format(age=_STREWN).replace("events", "families"),
    "ALTER TABLE families ADD PRIMARY KEY (id)",
    """
    CREATE TABLE lines AS
    SELECT i AS id, 1 + i %% %(rows)s AS family, repeat(md5(i::text), 2) AS message
    FROM generate_series(1::bigint, 2 * %(rows)s) AS i
    """,
    "ALTER TABLE lines ADD PRIMARY KEY (id)",
    "CREATE INDEX ON lines (family)",
    "ALTER TABLE lines ADD FOREIGN KEY (family) REFERENCES families ON DELETE CASCADE",
)
_QUIET = """
    CREATE TABLE quiet AS
    SELECT i AS id, now() - (%(rows)s - i) * interval '1 millisecond' AS created_at
    FROM generate_series(1::bigint, %(rows)s) AS i
"""
# All of the first partition is older than any retention; the second takes what comes.
_PARTED = (
    """
    CREATE TABLE parted (id bigint, created_at timestamptz, status int, correlation_id uuid,
        payload text, PRIMARY KEY (id, created_at)) PARTITION BY RANGE (created_at)
    """,
    "CREATE INDEX ON parted (created_at, id)",
    "CREATE TABLE parted_old PARTITION OF parted FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')",
    "CREATE TABLE parted_new PARTITION OF parted FOR VALUES FROM ('2021-01-01') TO (MAXVALUE)",
    """
    INSERT INTO parted SELECT i, timestamptz '2020-01-01' + i * interval '1 second', i %% 5,
        gen_random_uuid(), repeat(md5(i::text), 3) FROM generate_series(1::bigint, %(rows)s) AS i
    """,
    """
    INSERT INTO parted SELECT i, now(), 0, gen_random_uuid(), '' FROM generate_series(1, 1000) AS i
    """,
    "VACUUM ANALYZE parted",
)


@dataclass(frozen=True)
class Table:
    """A table in a database of its own."""

    name: str
    url: str
    rows: int

    @property
    def database(self) -> str:
        return self.url.rpartition("/")[2]

    def keep_for(self, expired: float = EXPIRED_SHARE) -> timedelta:
        """Return the retention by which that share of the rows has expired."""
        return _STEP * int(self.rows * (1 - expired))


class Stage:
    """An embedded PostgreSQL and an embedded Valkey, and the tables on them."""

    def __init__(self) -> None:
        self._postgres = PostgresServer(settings=_SETTINGS)
        self._valkey = ValkeyServer()
        self._numbers = count(1)

    def __enter__(self) -> Self:
        self._postgres.start()
        self._valkey.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._valkey.close()
        self._postgres.stop()

    @property
    def redis_url(self) -> str:
        return self._valkey.url()

    @property
    def server(self) -> str:
        return self._postgres.installation.name

    def events(self, rows: int) -> Table:
        """Make the table everybody deletes from: about 170 bytes a row, in the order it grew."""
        return self._make("events", _EVENTS.format(age=_IN_ORDER), "(created_at, id)", rows)

    def strewn(self, rows: int, name: str = "strewn") -> Table:
        """Make the same table with the expired rows strewn among those that stay, and no index on
        their age: as where retention goes by status, or by a time nobody indexed.
        """
        return self._make(name, _EVENTS.format(age=_STREWN).replace("events", name), None, rows)

    def families(self, rows: int) -> Table:
        """Make a strewn table with two child rows to each of its own, which go along by a cascade."""
        return self.made("families", rows, *_FAMILIES)

    def quiet(self, rows: int) -> Table:
        """Make a large table of narrow rows, none older than a few hours."""
        return self._make("quiet", _QUIET, "(created_at)", rows)

    def parted(self, rows: int) -> Table:
        """Make a partitioned table with so many expired rows in one partition, and a young one."""
        url = self._postgres.create_database("made_parted")
        with session(url) as cursor:
            for statement in _PARTED:
                cursor.execute(statement, {"rows": rows})
        with connected(url, "benchmarks") as connection:
            ensure_ledger(connection)
        return Table("parted", url, rows)

    def made(self, name: str, rows: int, *statements: str) -> Table:
        """Make a table by statements of the caller's own, which may hold %(rows)s and %(step)s."""
        url = self._postgres.create_database(f"made_{name}")
        with session(url) as cursor:
            for statement in statements:
                cursor.execute(statement, {"rows": rows, "step": _STEP})
            cursor.execute("VACUUM ANALYZE")
        with connected(url, "benchmarks") as connection:
            ensure_ledger(connection)
        return Table(name, url, rows)

    @contextmanager
    def copy_of(self, table: Table) -> Iterator[Table]:
        """Give one contender a copy of a table; its pages are clean and in the system's cache."""
        name = f"copy_{next(self._numbers)}"
        with self.administrator() as server:
            strategy = ""
            if server.connection.server_version >= _COPY_STRATEGY_SINCE:
                strategy = " STRATEGY file_copy"  # copies files; else it would go through the WAL
            server.execute(f"CREATE DATABASE {name} TEMPLATE {table.database}{strategy}")
            server.execute("CHECKPOINT")
            try:
                yield Table(table.name, self._postgres.url(name), table.rows)
            finally:
                server.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def administrator(self) -> AbstractContextManager[Any]:
        """Return a cursor in a database nobody measures, each statement its own transaction."""
        return session(self._postgres.url())

    def _make(self, name: str, create: str, index: str | None, rows: int) -> Table:
        url = self._postgres.create_database(f"made_{name}")
        with session(url) as cursor:
            cursor.execute(create, {"rows": rows, "step": _STEP})
            cursor.execute(f"ALTER TABLE {name} ADD PRIMARY KEY (id)")
            if index is not None:
                cursor.execute(f"CREATE INDEX ON {name} {index}")
            cursor.execute(f"VACUUM ANALYZE {name}")
        # Once in a database's life; a run after the first finds it there.
        with connected(url, "benchmarks") as connection:
            ensure_ledger(connection)
        return Table(name, url, rows)


@contextmanager
def session(url: str) -> Iterator[Any]:
    """Open a cursor of an autocommitting connection."""
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            yield cursor


@contextmanager
def snapshot_held(table: Table, *, wanted: bool = True) -> Iterator[None]:
    """Keep a report's transaction open beside a block: no dead row may be forgotten meanwhile."""
    if not wanted:
        yield
        return
    with closing(psycopg2.connect(table.url)) as connection:
        connection.set_session(isolation_level="REPEATABLE READ")
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT count(*) FROM (SELECT FROM {table.name} LIMIT 1) AS one")
            yield
