"""Databases handed from test to test: making and dropping one takes 0.1 to 0.5 s, emptying it 0.02.

One in which anything is left that was not in it when it was made is dropped, not handed on.
"""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count

import psycopg2
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from embedded.postgresql import PostgresServer
from tests.integration.database import Database

EMPTY = ""
_TIMES = 100  # a database is handed out: its catalogs grow a little each time
_LONG_SECONDS = 0.3  # a schema that takes longer to make is made once, and copied
_END_SESSIONS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
_OTHERS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""
_SCHEMAS = """
    SELECT quote_ident(nspname) FROM pg_namespace
    WHERE nspname NOT LIKE 'pg\\_%' AND nspname NOT IN ('information_schema', 'public')
"""
_RENEW_PUBLIC = """
    DROP SCHEMA IF EXISTS public CASCADE;
    CREATE SCHEMA public AUTHORIZATION pg_database_owner;
    GRANT USAGE ON SCHEMA public TO PUBLIC
"""
# Whatever a test can leave behind outside of the schemas that are dropped: objects by their catalog,
# rights that were given or taken away, settings, large objects, prepared transactions.
_LEFT = """
    SELECT (SELECT array_agg(c::text ORDER BY c::text) FROM (
        SELECT 'pg_namespace', nspname::text FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_t%'
        UNION ALL SELECT 'rights of pg_namespace', nspname || nspacl::text FROM pg_namespace
        UNION ALL SELECT 'pg_class', oid::regclass::text FROM pg_class WHERE oid >= 16384
        UNION ALL SELECT 'rights of pg_class', oid::regclass::text || relacl::text FROM pg_class
        UNION ALL SELECT 'pg_proc', oid::regprocedure::text FROM pg_proc WHERE oid >= 16384
        UNION ALL SELECT 'rights of pg_proc', oid::regprocedure::text || proacl::text FROM pg_proc
        UNION ALL SELECT 'pg_type', oid::regtype::text FROM pg_type WHERE oid >= 16384
        UNION ALL SELECT 'pg_cast', castsource || ' ' || casttarget FROM pg_cast WHERE oid >= 16384
        UNION ALL SELECT 'pg_operator', oid::regoperator::text FROM pg_operator WHERE oid >= 16384
        UNION ALL SELECT 'pg_language', concat(lanname, lanpltrusted, lanacl) FROM pg_language
        UNION ALL SELECT 'pg_extension', extname::text FROM pg_extension
        UNION ALL SELECT 'pg_am', amname::text FROM pg_am
        UNION ALL SELECT 'pg_collation', collname::text FROM pg_collation WHERE oid >= 16384
        UNION ALL SELECT 'pg_event_trigger', evtname::text FROM pg_event_trigger
        UNION ALL SELECT 'pg_publication', pubname::text FROM pg_publication
        UNION ALL SELECT 'pg_foreign_server', srvname::text FROM pg_foreign_server
        UNION ALL SELECT 'pg_default_acl', defaclacl::text FROM pg_default_acl
        UNION ALL SELECT 'pg_largeobject', oid::text FROM pg_largeobject_metadata
        UNION ALL SELECT 'setting', setconfig::text FROM pg_db_role_setting
            WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
        UNION ALL SELECT 'pg_database', concat(datacl, datconnlimit, datallowconn, datdba)
            FROM pg_database WHERE datname = current_database()
        UNION ALL SELECT 'prepared', gid FROM pg_prepared_xacts WHERE database = current_database()
    ) AS c)
"""


class DatabasePool:
    """Databases of one server, made as they are needed."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._numbers = count()
        self._free: list[tuple[str, int]] = []
        self._clean: str | None = None
        self._templates: dict[str, str | None] = {}
        """by schema; None for one that is made again each time"""

    @contextmanager
    def holding(self, schema: str) -> Iterator[Database]:
        """Hand out a database that holds a schema's tables."""
        template = self._template(schema)
        if template is not None:
            yield from self._copied(template)
            return
        name, times = self._free.pop() if self._free else (self._made(), 0)
        url = self._server.url(name)
        _run(url, schema)
        try:
            yield Database(url, self._server.installation.version)
        finally:
            if times < _TIMES and self._emptied(url):
                self._free.append((name, times + 1))
            else:
                self._server.drop_database(name)

    def _template(self, schema: str) -> str | None:
        if schema == EMPTY:
            return None
        if schema not in self._templates:
            name = f"template_{len(self._templates)}"
            url = self._server.create_database(name)
            begun = time.monotonic()
            _run(url, schema)
            kept = time.monotonic() - begun > _LONG_SECONDS
            self._templates[schema] = name if kept else None
            if not kept:
                self._server.drop_database(name)
        return self._templates[schema]

    def _copied(self, template: str) -> Iterator[Database]:
        name = f"copy_{next(self._numbers)}"
        url = self._server.create_database(name, template)
        try:
            yield Database(url, self._server.installation.version)
        finally:
            self._server.drop_database(name)

    def _made(self) -> str:
        name = f"test_{next(self._numbers)}"
        url = self._server.create_database(name)
        with _session(url) as session:
            session.execute(_RENEW_PUBLIC)
            session.execute(_LEFT)
            left = str(session.fetchall())
        assert self._clean in {None, left}, left
        self._clean = left
        return name

    def _emptied(self, url: str) -> bool:
        """Empty a database; say whether nothing is left in it."""
        try:
            with _session(url) as session:
                session.execute(_END_SESSIONS)
                session.execute(_SCHEMAS)
                for (schema,) in session.fetchall():
                    session.execute(f"DROP SCHEMA {schema} CASCADE")
                session.execute(_RENEW_PUBLIC)
                session.execute(_LEFT)
                left = str(session.fetchall())
                session.execute(_OTHERS)
                (others,) = session.fetchone() or (1,)
        except psycopg2.Error:
            return False
        return left == self._clean and not others


@contextmanager
def _session(url: str) -> Iterator[Cursor]:
    with closing(psycopg2.connect(url, options="-c lock_timeout=5s")) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            yield cursor


def _run(url: str, schema: str) -> None:
    if schema == EMPTY:
        return
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(schema)
