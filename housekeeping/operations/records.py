"""The ledger, read: past runs, and which run somebody means."""

from collections.abc import Iterable
from typing import Any

from housekeeping.policies.pace import Pace
from housekeeping.stores.postgres.connection import connected, guarded
from housekeeping.stores.postgres.ledger_schema import ledger_missing
from housekeeping.stores.postgres.run_ledger import FoundRun, find_runs, history

_APPLICATION = "hk:history"


def past_runs(
    urls: Iterable[str], operation: str | None, since: str | None, limit: int
) -> list[dict[str, Any]]:
    """Return past runs of all housekeeping databases, newest first.

    `since` is an interval as text, such as `86400 seconds`. A database without a ledger has none.
    """
    runs: list[dict[str, Any]] = []
    for url in urls:
        with (
            connected(url, _APPLICATION) as connection,
            guarded(connection, Pace(), reading=True, any_plan=True),
        ):
            if not ledger_missing(connection):
                runs += history(connection, operation, since, limit)
    runs.sort(key=lambda run: run["started_at"], reverse=True)
    return runs[:limit]


def runs_called(urls: Iterable[str], prefix: str) -> list[FoundRun]:
    """Return the runs whose id begins so, or whose Celery task has this id."""
    found: list[FoundRun] = []
    for url in urls:
        with (
            connected(url, _APPLICATION) as connection,
            guarded(connection, Pace(), reading=True, any_plan=True),
        ):
            if not ledger_missing(connection):
                found += find_runs(connection, prefix)
    return found
