"""Past and present runs, in the housekeeping database: who, what, when, why it stopped."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.stores.postgres.statement import Statement, execute

_START = Statement(
    "ledger.start_run",
    sql.SQL(
        """
        INSERT INTO housekeeping.run AS r
            (id, operation, policy, target, task_id, run_by, started_at, cutoffs)
        VALUES (%(id)s::uuid, %(operation)s, %(policy)s, %(target)s, %(task_id)s, %(run_by)s,
                clock_timestamp(), %(cutoffs)s::jsonb)
        ON CONFLICT (id) DO UPDATE SET attempts = r.attempts + 1
        RETURNING r.attempts, r.ended_at, r.cutoffs, r.result
        """
    ),
)
_END = Statement(
    "ledger.end_run",
    sql.SQL(
        """
        UPDATE housekeeping.run SET ended_at = clock_timestamp(), stop_reason = %(stop_reason)s,
            success = %(success)s, total = %(total)s, batches = %(batches)s, error = %(error)s,
            result = %(result)s::jsonb
        WHERE id = %(id)s::uuid AND result IS NULL -- also where a newer run has settled it
        """
    ),
)
_RESULT = Statement(
    "ledger.result", sql.SQL("SELECT result FROM housekeeping.run WHERE id = %(id)s::uuid")
)
_ABANDONED = Statement(
    "ledger.abandoned_runs",
    sql.SQL(
        """
        SELECT id FROM housekeeping.run
        WHERE target = %(target)s AND ended_at IS NULL AND id <> %(id)s::uuid
        """
    ),
)
_CLOSE_ABANDONED = Statement(
    "ledger.close_abandoned_run",
    sql.SQL(
        """
        UPDATE housekeeping.run SET ended_at = clock_timestamp(), stop_reason = 'error',
            success = false, total = %(total)s, batches = %(batches)s,
            error = 'its process ended before the run did; a later run went on from there'
        WHERE id = %(id)s::uuid AND ended_at IS NULL
        """
    ),
)
_WORKED = Statement(
    "ledger.worked",
    sql.SQL(
        """
        SELECT total, (result #>> '{phases,delete}')::float8 + (result #>> '{phases,commit}')::float8
        FROM housekeeping.run
        WHERE target = %(target)s AND operation = %(operation)s AND policy = %(policy)s
          AND total >= %(least)s AND result #> '{phases,commit}' IS NOT NULL
        ORDER BY started_at DESC LIMIT %(runs)s
        """
    ),
)
_HISTORY = Statement(
    "ledger.history",
    sql.SQL(
        """
        SELECT id, operation, policy, target, task_id, run_by, started_at, ended_at, attempts,
               stop_reason, success, total, batches, error, result
        FROM housekeeping.run
        WHERE (%(operation)s::text IS NULL OR operation = %(operation)s)
          AND (%(since)s::interval IS NULL OR started_at >= clock_timestamp() - %(since)s::interval)
        ORDER BY started_at DESC LIMIT %(limit)s
        """
    ),
)
_FIND = Statement(
    "ledger.find_run",
    sql.SQL(
        """
        SELECT id, ended_at IS NOT NULL FROM housekeeping.run
        WHERE id::text LIKE %(prefix)s || '%%' OR task_id = %(prefix)s
        ORDER BY ended_at IS NOT NULL, started_at DESC LIMIT 20
        """
    ),
)


@dataclass(frozen=True)
class Started:
    """A run's row after it was begun, or found."""

    attempts: int
    ended: bool
    cutoffs: Mapping[str, datetime]
    """of the first attempt: a resumed run takes nothing younger"""
    result: Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class RunIdentity:
    """Who runs what on what."""

    id: UUID
    operation: str
    policy: str
    target: str
    task_id: str | None
    run_by: str


def start_run(connection: Connection, run: RunIdentity, cutoffs: Mapping[str, datetime]) -> Started:
    """Begin a run's row, or find the one an earlier attempt began."""
    stamps = json.dumps({reason: cutoff.isoformat() for reason, cutoff in cutoffs.items()})
    attempts, ended_at, kept, result = execute(
        connection, _START, **{**vars(run), "id": str(run.id)}, cutoffs=stamps
    ).one()
    parsed = {reason: datetime.fromisoformat(stamp) for reason, stamp in kept.items()}
    return Started(attempts, ended_at is not None, parsed, result)


def end_run(connection: Connection, run_id: UUID, result: Mapping[str, Any], total: int) -> None:
    """Write how a run ended; a row that has ended stays as it is."""
    execute(
        connection,
        _END,
        id=str(run_id),
        stop_reason=result["stop_reason"],
        success=result["success"],
        total=total,
        batches=result["batches"],
        error=result.get("error"),
        result=json.dumps(result),
    )


def result_of(connection: Connection, run_id: UUID) -> Mapping[str, Any] | None:
    """Return the result a run ended with, or None."""
    found: Mapping[str, Any] | None = execute(connection, _RESULT, id=str(run_id)).scalar()
    return found


def abandoned_runs(connection: Connection, target: str, but: UUID) -> list[UUID]:
    """Return runs on a target that never ended; their lease is ours now, so they are dead."""
    found = execute(connection, _ABANDONED, target=target, id=str(but))
    return [UUID(str(row[0])) for row in found]


def close_abandoned(connection: Connection, run_id: UUID, total: int, batches: int) -> None:
    """End a dead run's row with what its windows committed."""
    execute(connection, _CLOSE_ABANDONED, id=str(run_id), total=total, batches=batches)


def worked(
    connection: Connection, operation: str, policy: str, target: str, *, least: int, runs: int
) -> list[tuple[int, float]]:
    """Return rows and seconds worked of a policy's last runs that removed at least so many rows."""
    asked = {"operation": operation, "policy": policy, "target": target}
    found = execute(connection, _WORKED, **asked, least=least, runs=runs)
    return [(int(total), float(seconds)) for total, seconds in found]


def history(
    connection: Connection, operation: str | None, since: str | None, limit: int
) -> list[dict[str, Any]]:
    """Return past runs, newest first. `since` is an interval as text, such as `86400 seconds`."""
    rows = execute(connection, _HISTORY, operation=operation, since=since, limit=limit).mappings()
    return [dict(row) for row in rows]


@dataclass(frozen=True)
class FoundRun:
    """A run somebody asked for."""

    id: UUID
    ended: bool


def find_runs(connection: Connection, prefix: str) -> list[FoundRun]:
    """Return runs whose id begins so, or whose Celery task has this id; those still going first."""
    found = execute(connection, _FIND, prefix=prefix)
    return [FoundRun(UUID(str(run_id)), ended) for run_id, ended in found]
