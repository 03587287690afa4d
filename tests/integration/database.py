"""A database of a test's own, and sessions of its users."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg2
from psycopg2.extensions import connection as Session  # noqa: N812

from tests.conditions import wait_until

WAITING = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name LIKE 'hk:%%'"
    " AND wait_event_type = 'Lock'"
)


@dataclass(frozen=True)
class Database:
    """One database; each statement here is a transaction of its own."""

    url: str
    version: int

    def run(self, statement: str, *values: Any) -> None:
        with self._autocommitting() as session, session.cursor() as cursor:
            cursor.execute(statement, values or None)

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._autocommitting() as session, session.cursor() as cursor:
            cursor.execute(query, values or None)
            return cursor.fetchall()

    def one(self, query: str, *values: Any) -> Any:
        """Return the first column of the first row."""
        return self.rows(query, *values)[0][0]

    def column(self, query: str, *values: Any) -> list[Any]:
        """Return the first column of all rows."""
        return [row[0] for row in self.rows(query, *values)]

    def count(self, table: str) -> int:
        return int(self.one(f"SELECT count(*) FROM {table}"))

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A user's session: what it does is seen by others once it commits."""
        with closing(psycopg2.connect(self.url)) as session:
            yield session

    def wait_until_we_wait_for_a_lock(self) -> None:
        """Return as soon as a run of ours stands in a user's queue."""
        wait_until(lambda: self.one(WAITING) > 0, 10, lambda: "no run waits for a lock")

    @contextmanager
    def _autocommitting(self) -> Iterator[Session]:
        with closing(psycopg2.connect(self.url)) as session:
            session.autocommit = True
            yield session
