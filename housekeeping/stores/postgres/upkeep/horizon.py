"""Who keeps dead rows from being removed: the holders of the oldest snapshot."""

from dataclasses import dataclass
from datetime import timedelta

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.stores.postgres.statement import Statement, execute

_SETTLED_AGE = 1_000_000  # a slot or standby this far behind is no longer in step


@dataclass(frozen=True)
class Holder:
    """One holder of an old snapshot or transaction id."""

    who: str
    age: int
    """transactions begun since"""
    seconds: float | None
    """None for slots and standbys, which have no beginning"""

    def __str__(self) -> str:
        since = "" if self.seconds is None else f" for {timedelta(seconds=int(self.seconds))}"
        return f"{self.who}{since}"


_HOLDERS = Statement(
    "upkeep.horizon_holders",
    sql.SQL(
        """
        SELECT who, xids, seconds::float8 FROM (
            SELECT format('session %%s of %%s, %%s, %%s', a.pid, a.usename,
                          coalesce(nullif(a.application_name, ''), 'unnamed'), a.state),
                   greatest(age(a.backend_xmin), age(a.backend_xid)),
                   extract(epoch FROM clock_timestamp() - a.xact_start)
            FROM pg_stat_activity a
            WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
              AND (a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL)
              -- A VACUUM holds nothing back.
              AND NOT EXISTS (SELECT FROM pg_stat_progress_vacuum v WHERE v.pid = a.pid)
            UNION ALL
            SELECT format('prepared transaction %%L of %%s', gid, owner), age(transaction),
                   extract(epoch FROM clock_timestamp() - prepared)
            FROM pg_prepared_xacts WHERE database = current_database()
            UNION ALL
            SELECT format('replication slot %%s (%%s)', slot_name,
                          CASE WHEN active THEN 'active' ELSE 'inactive' END),
                   age(xmin), NULL FROM pg_replication_slots WHERE xmin IS NOT NULL
            UNION ALL
            SELECT format('standby %%s, by hot_standby_feedback',
                          coalesce(nullif(application_name, ''), client_addr::text)),
                   age(backend_xmin), NULL FROM pg_stat_replication WHERE backend_xmin IS NOT NULL
        ) AS holder(who, xids, seconds)
        ORDER BY xids DESC, seconds DESC NULLS LAST
        """
    ),
)


def holders(connection: Connection) -> tuple[Holder, ...]:
    """Return everybody who holds the xmin horizon of this database, the oldest first."""
    return tuple(Holder(*row) for row in execute(connection, _HOLDERS))


def old_ones(found: tuple[Holder, ...], older_than: timedelta) -> tuple[Holder, ...]:
    """Return those that are no passing thing."""
    limit = older_than.total_seconds()
    return tuple(
        holder
        for holder in found
        if (holder.age >= _SETTLED_AGE if holder.seconds is None else holder.seconds > limit)
    )


_OLD_TRANSACTION = Statement(
    "upkeep.old_transaction",
    # REINDEX CONCURRENTLY waits for every transaction that began before it and may see the table.
    sql.SQL(
        """
        SELECT format('session %%s of %%s, %%s, %%s', pid, usename,
                      coalesce(nullif(application_name, ''), 'unnamed'), state), 0,
               extract(epoch FROM clock_timestamp() - xact_start)::float8
        FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()
          AND backend_type <> 'autovacuum worker'
          AND xact_start < clock_timestamp() - %(older)s
        UNION ALL
        SELECT format('prepared transaction %%L of %%s', gid, owner), 0,
               extract(epoch FROM clock_timestamp() - prepared)::float8
        FROM pg_prepared_xacts
        WHERE database = current_database() AND prepared < clock_timestamp() - %(older)s
        ORDER BY 3 DESC LIMIT 1
        """
    ),
)


def old_transaction(connection: Connection, older_than: timedelta) -> Holder | None:
    """Return the oldest transaction of this database that is older than that, or None."""
    row = execute(connection, _OLD_TRANSACTION, older=older_than).first()
    return None if row is None else Holder(*row)


_DATABASES = Statement(
    "upkeep.database_ages",
    sql.SQL(
        """
        SELECT datname, greatest(age(datfrozenxid), mxid_age(datminmxid)) FROM pg_database
        WHERE datallowconn ORDER BY 2 DESC LIMIT 1
        """
    ),
)


def oldest_database(connection: Connection) -> tuple[str, int]:
    """Return the database of the server that is nearest to wraparound, and its age."""
    name, age = execute(connection, _DATABASES).one()
    return str(name), int(age)


_HIDDEN = Statement(
    "upkeep.hidden_sessions",
    sql.SQL(
        """
        SELECT current_user WHERE NOT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')
        """
    ),
)


def hidden_sessions(connection: Connection) -> str | None:
    """Return our role where the server hides from it what other roles' sessions do."""
    found: str | None = execute(connection, _HIDDEN).scalar()
    return found
