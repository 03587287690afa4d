"""How fast a server is right now, by a little arithmetic: no table is read, nothing is written."""

import time
from statistics import median

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.stores.postgres.statement import Statement, execute

# 12 ms on the machine on which a run's prices were measured, on PostgreSQL 15 and 18 alike; 40 ms
# there while others kept both its cores busy, as 3.4 times as long as alone were the runs.
_REFERENCE_SECONDS = 0.012
_TIMES = 5
_LEAST, _MOST = 0.2, 10.0

_ARITHMETIC = Statement(
    "yardstick",
    sql.SQL(
        "SELECT count(*) FROM generate_series(1, 500) AS a, generate_series(1, 600) AS b"
        " WHERE hashint4(a # b) > 0"
    ),
)


def slowness(connection: Connection) -> float:
    """Return how many times as long as on that machine things take, 0.2 to 10."""
    taken = median(_seconds(connection) for _ in range(_TIMES))
    return min(_MOST, max(_LEAST, taken / _REFERENCE_SECONDS))


def _seconds(connection: Connection) -> float:
    begun = time.perf_counter()
    execute(connection, _ARITHMETIC).scalar_one()
    return time.perf_counter() - begun
