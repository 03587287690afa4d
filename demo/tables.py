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


def fill(connection: Any, rows: int) -> dict[str, int]:
    """Make the tables and their rows; return how many of what."""
    with connection.cursor() as cursor:
        cursor.execute(_FILL, {"rows": rows})
    return {"webhook deliveries": rows, "audit entries": rows}
