"""Partitioned tables for tests: ten days a partition, one row a day, the cutoff inside a partition."""

from tests.integration.database import Database

BOUNDARY = 3  # the partition that holds rows on both sides of 30 days ago
WHOLE = (9, 8, 7, 6, 5, 4)  # those all of whose rows are older, oldest first
DAYS = 96  # row i was made i days ago at midnight: from row 30 on they have expired
EXPIRED = 66

# Partition k holds rows 10k - 4 to 10k + 5: 0 is the current one, 3 holds the cutoff.
_MAKE = """
DO $$ DECLARE edge timestamptz := date_trunc('day', now()) + interval '5 days'; BEGIN
  FOR k IN 0..9 LOOP
    EXECUTE format('CREATE TABLE %%I PARTITION OF %%I FOR VALUES FROM (%%L) TO (%%L)',
      %(table)s || '_' || k, %(table)s, edge - (k + 1) * interval '10 days',
      edge - k * interval '10 days');
  END LOOP;
END $$
"""


def partitioned(database: Database, table: str = "events", columns: str = "") -> None:
    """Make a table in ten partitions, without rows."""
    database.run(
        f"CREATE TABLE {table} (id bigint, created_at timestamptz NOT NULL, status text{columns})"
        " PARTITION BY RANGE (created_at)"
    )
    add_partitions(database, table)


def add_partitions(database: Database, table: str) -> None:
    """Give a table that ranges over a time its ten partitions."""
    database.run(_MAKE.replace("%(table)s", f"'{table}'").replace("%%", "%"))


def fill(database: Database, table: str = "events", times: int = 1) -> None:
    """Give a table `times` rows a day, the newest of today; row i is of i days ago."""
    database.run(
        f"INSERT INTO {table} SELECT i, date_trunc('day', now()) - i * interval '1 day', 'done'"
        f" FROM generate_series(0, {DAYS - 1}) i, generate_series(1, {times})"
    )
    database.run(f"ANALYZE {table}")


def ages(database: Database, table: str = "events") -> list[int]:
    """Return the rows that are left; a row's id is its age in days."""
    return database.column(f"SELECT DISTINCT id::int FROM {table} ORDER BY 1")


def attached(database: Database, table: str = "events") -> list[str]:
    """Return the names of a table's partitions."""
    return database.column(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass"
        " AND NOT inhdetachpending ORDER BY 1",
        table,
    )


def there(database: Database, table: str = "events") -> list[str]:
    """Return the names of all tables that are or were partitions of one."""
    return database.column(
        "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relname LIKE %s ORDER BY 1",
        f"{table}\\_%",
    )


def move_time(database: Database, seconds: int) -> None:
    """Let everything we detached have been detached so many seconds earlier."""
    database.run(
        "UPDATE housekeeping.detached_partition SET detached_at = detached_at - %(s)s * interval '1 s',"
        " drop_after = drop_after - %(s)s * interval '1 s'".replace("%(s)s", str(seconds))
    )


def states(database: Database) -> dict[str, str]:
    """Return the ledger's state of every partition we ever wanted to detach."""
    return dict(
        database.rows(
            "SELECT relation_name, state FROM housekeeping.detached_partition ORDER BY id"
        )
    )
