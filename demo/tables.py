"""Fills tables no system of ours knows: what a user describes under [tables.NAME]."""

from typing import Any

_FILL = """
    CREATE TABLE webhook_deliveries (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, endpoint text NOT NULL, state text NOT NULL,
        payload jsonb NOT NULL, created_at timestamptz NOT NULL, finished_at timestamptz);
    INSERT INTO webhook_deliveries (endpoint, state, payload, created_at, finished_at)
    SELECT 'https://example.com/hook/' || i %% 50,
        (ARRAY['delivered', 'delivered', 'delivered', 'failed', 'waiting'])[1 + i %% 5],
        jsonb_build_object('order', i), began,
        CASE WHEN i %% 5 < 4 THEN began + interval '2 seconds' END
    FROM (SELECT i, now() - (i::float8 / %(rows)s) * interval '90 days' AS began
          FROM generate_series(%(rows)s, 1, -1) i) AS made;
    CREATE TABLE audit_entries (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, actor text NOT NULL, action text NOT NULL,
        happened_at timestamptz NOT NULL);
    INSERT INTO audit_entries (actor, action, happened_at)
    SELECT 'user ' || i %% 300, (ARRAY['login', 'export', 'rename'])[1 + i %% 3],
        now() - (i::float8 / %(rows)s) * interval '400 days'
    FROM generate_series(%(rows)s, 1, -1) i;
    ANALYZE webhook_deliveries, audit_entries;
"""
_MONTHS = 6
_PARTITIONED = """
    CREATE TABLE measurements (sensor int NOT NULL, taken_at timestamptz NOT NULL, value float8)
    PARTITION BY RANGE (taken_at)
"""
_PARTITION = """
    SELECT format(
        'CREATE TABLE measurements_%%s PARTITION OF measurements FOR VALUES FROM (%%L) TO (%%L)',
        to_char(month, 'YYYY_MM'), month, month + interval '1 month')
    FROM (SELECT date_trunc('month', now()) - number * interval '1 month' AS month
          FROM generate_series(0, %(months)s) number) AS months
"""
_MEASURE = """
    INSERT INTO measurements
    SELECT i %% 40, now() - (i::float8 / %(rows)s) * interval '150 days', random()
    FROM generate_series(%(rows)s, 1, -1) i;
    ANALYZE measurements;
"""


def fill(connection: Any, rows: int) -> dict[str, int]:
    """Make the tables and their rows; return how many of what."""
    with connection.cursor() as cursor:
        cursor.execute(_FILL, {"rows": rows})
        cursor.execute(_PARTITIONED)
        cursor.execute(_PARTITION, {"months": _MONTHS})
        for (statement,) in cursor.fetchall():
            cursor.execute(statement)
        cursor.execute(_MEASURE, {"rows": rows})
    return {"webhook deliveries": rows, "audit entries": rows, "measurements": rows}
