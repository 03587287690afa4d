"""How much the server's disk has left: asked of the machine where it is ours, else reckoned."""

import os
from pathlib import Path

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.stores.postgres.statement import Statement, execute

# Not knowing the disk, only what takes a small part of what the server holds anyway: a server so
# near its end that this fills it is in trouble tonight with or without us.
_SHARE_UNSEEN = 0.05

_PLACE = Statement(
    "upkeep.data_directory",
    sql.SQL(
        """
        SELECT CASE WHEN pg_has_role(current_user, 'pg_read_all_settings', 'USAGE')
                    THEN current_setting('data_directory', true) END,
               coalesce(nullif(pg_tablespace_location(
                   (SELECT coalesce(nullif(reltablespace, 0), (SELECT dattablespace FROM pg_database
                                    WHERE datname = current_database()))
                    FROM pg_class WHERE oid = %(index)s)), ''), ''),
               coalesce(host(inet_server_addr()), ''), pg_postmaster_start_time()
        """
    ),
)
_USED = Statement(
    "upkeep.databases_bytes",
    # Sizes of databases we may not connect to are refused unless pg_read_all_stats is ours.
    sql.SQL(
        """
        SELECT sum(pg_database_size(oid))::bigint FROM pg_database
        WHERE has_database_privilege(oid, 'CONNECT')
           OR pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')
        """
    ),
)


def lacking(connection: Connection, index: int, needed: int, disk_size: int | None) -> str | None:
    """Say why there is no room for `needed` more bytes beside an index; None where there is."""
    free = _free_here(connection, index)
    if free is not None:
        return None if needed <= free else _told(needed, f"{_bytes(free)} of the disk are free")
    used = int(execute(connection, _USED).scalar() or 0)
    if disk_size is not None:
        left = disk_size - used
        return (
            None
            if needed <= left
            else _told(needed, f"{_bytes(max(0, left))} are left of disk_size")
        )
    if needed <= used * _SHARE_UNSEEN:
        return None
    return _told(
        needed,
        "the server's disk can't be seen from here; give its size as disk_size",
    )


def _free_here(connection: Connection, index: int) -> int | None:
    """Return the bytes free where an index lies, if that disk is this machine's."""
    directory, tablespace, address, _ = execute(connection, _PLACE, index=index).one()
    if directory is None or address not in ("", "127.0.0.1", "::1"):
        return None
    try:
        # A container publishes its port on 127.0.0.1 too, but its data directory is not ours.
        running = (Path(directory) / "postmaster.pid").exists()
        if not running:
            return None
        disk = os.statvfs(tablespace or directory)
    except OSError:
        return None
    return disk.f_bavail * disk.f_frsize


def _told(needed: int, why: str) -> str:
    return f"needs {_bytes(needed)} for the time of the rebuild, {why}"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1024:  # noqa: PLR2004
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TB"
