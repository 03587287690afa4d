"""Fills Milvaion's newest schema: occurrences in all statuses, logs, dead letters, workflows."""

from pathlib import Path
from typing import Any

_SCHEMA = Path(__file__).parent / "schemas" / "milvaion_2026_08.sql"
_JOBS = 200

_FILL = (
    """
    INSERT INTO "ScheduledJobs" ("Id", "DisplayName", "ExecuteAt", "CronExpression", "IsActive",
        "ConcurrentExecutionPolicy", "JobNameInWorker", "Version")
    SELECT gen_random_uuid(), 'Job ' || i, now() + i * interval '1 minute', '0 * * * * *',
        i %% 10 <> 0, 0, 'Job' || i || 'Worker', 1
    FROM generate_series(1, %(jobs)s) i
    """,
    """
    INSERT INTO "Workflows" ("Id", "Name", "IsActive", "FailureStrategy", "MaxStepRetries", "Version",
        "Definition")
    SELECT gen_random_uuid(), 'Nightly close', true, 0, 3, 1, '{}'
    """,
    """
    INSERT INTO "WorkflowRuns" ("Id", "WorkflowId", "WorkflowVersion", "CorrelationId", "Status",
        "StartTime", "CreatedAt")
    SELECT gen_random_uuid(), (SELECT "Id" FROM "Workflows" LIMIT 1), 1, gen_random_uuid(),
        i %% 6, now() - i * interval '1 day', now() - i * interval '1 day'
    FROM generate_series(1, 120) i
    """,
    # Most jobs end well; a tenth fails, a few are cancelled, time out, get lost or are skipped, and
    # some still wait or run. One in two hundred ended without an EndTime, as real ones do.
    """
    INSERT INTO "JobOccurrences" ("Id", "JobName", "JobId", "JobVersion", "CorrelationId", "WorkerId",
        "Status", "StartTime", "EndTime", "DurationMs", "Result", "Exception", "CreatedAt",
        "DispatchRetryCount", "WorkflowRunId")
    SELECT gen_random_uuid(), 'Job' || i %% %(jobs)s, jobs.ids[1 + i %% %(jobs)s], 1,
        gen_random_uuid(), 'worker-' || i %% 8, status, began,
        CASE WHEN status < 2 OR i %% 200 = 0 THEN NULL ELSE began + interval '3 seconds' END,
        CASE WHEN status < 2 THEN NULL ELSE 3000 END,
        CASE WHEN status = 2 THEN repeat('ok ', 10) END,
        CASE WHEN status = 3 THEN repeat('System.TimeoutException at Worker.Run ', 4) END,
        began - interval '1 second', 0,
        CASE WHEN i %% 50 = 0 THEN runs.ids[1 + i / 50 %% 120] END
    FROM (SELECT i, now() - (i::float8 / %(occurrences)s) * interval '180 days' AS began,
              CASE WHEN i < 200 THEN i %% 2
                   ELSE (ARRAY[2,2,2,2,2,2,2,2,3,3,4,5,6,7,2,2,2,2,2,2])[1 + i %% 20] END AS status
          FROM generate_series(%(occurrences)s, 1, -1) i) AS made,
        (SELECT array_agg("Id") AS ids FROM "ScheduledJobs") AS jobs,
        (SELECT array_agg("Id") AS ids FROM "WorkflowRuns") AS runs
    """,
    """
    INSERT INTO "JobOccurrenceLogs" ("Id", "OccurrenceId", "Timestamp", "Level", "Message", "Category")
    SELECT gen_random_uuid(), "Id", "CreatedAt" + line * interval '1 second',
        (ARRAY['Information', 'Warning'])[line], 'step ' || line || ' of the job', 'JobLog'
    FROM "JobOccurrences", generate_series(1, 2) line
    """,
    """
    INSERT INTO "FailedOccurrences" ("Id", "JobId", "OccurrenceId", "CorrelationId", "JobDisplayName",
        "JobNameInWorker", "Exception", "FailedAt", "RetryCount", "FailureType", "Resolved")
    SELECT gen_random_uuid(), "JobId", "Id", "CorrelationId", "JobName", "JobName", "Exception",
        "CreatedAt" - interval '20 days', 3, 1, random() < 0.7
    FROM "JobOccurrences" WHERE "Status" = 3
    """,
)


def fill(connection: Any, occurrences: int) -> dict[str, int]:
    """Make the schema and its rows; return how many of what."""
    with connection.cursor() as cursor:
        cursor.execute(_SCHEMA.read_text())
        for statement in _FILL:
            cursor.execute(statement, {"jobs": _JOBS, "occurrences": occurrences})
        cursor.execute("ANALYZE")
        counts = {}
        for name, table in (
            ("occurrences", "JobOccurrences"),
            ("log lines", "JobOccurrenceLogs"),
            ("dead letters", "FailedOccurrences"),
        ):
            cursor.execute(f'SELECT count(*) FROM "{table}"')
            counts[name] = cursor.fetchone()[0]
    return counts
