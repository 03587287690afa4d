"""Whether the server may be trusted to build an index CONCURRENTLY.

PostgreSQL 14.0 to 14.3 can leave rows out of one that were updated while it was built, or rebuilt:
https://www.postgresql.org/docs/release/14.4/. A query by such an index misses them, and a unique one
lets them in twice. VACUUM, ANALYZE and DETACH are not concerned.
"""

from sqlalchemy import Connection

from housekeeping.stores.postgres.connection import server_version

_BROKEN_SINCE = 140000
_MENDED_IN = 140004


def builds_refused(connection: Connection) -> str | None:
    """Say why no index may be built or rebuilt CONCURRENTLY here; None where one may."""
    return refused_by(server_version(connection))


def refused_by(version: int) -> str | None:
    """Say it of a server's version as it counts itself: 140003 is 14.3."""
    if not _BROKEN_SINCE <= version < _MENDED_IN:
        return None
    shown = f"{version // 10000}.{version % 10000}"
    return (
        f"PostgreSQL {shown} can leave rows out of an index that is built or rebuilt CONCURRENTLY; "
        "update the server to 14.4 or newer, then REINDEX every index that was built so before"
    )


def build_line(connection: Connection, on: str) -> str:
    """Return the CREATE INDEX to paste for `on`, a table and what to index in parentheses."""
    return line_for(server_version(connection), on)


def line_for(version: int, on: str) -> str:
    """Return it for a server's version; whoever pastes it is told where it keeps writers waiting."""
    if (refused := refused_by(version)) is None:
        return f"CREATE INDEX CONCURRENTLY ON {on}"
    return f"/* Keeps writers waiting while it builds: {refused} */ CREATE INDEX ON {on}"
