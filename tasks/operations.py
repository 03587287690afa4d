"""Which engine operation each task runs, and what `check` asks of its policies."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from housekeeping.engine.run import Request, Surroundings
from housekeeping.operations.archives.expiry import drop_expired_archives, inspect_archive_expiry
from housekeeping.operations.inspection import Inspected, inspect_purge
from housekeeping.operations.maintenance import maintain
from housekeeping.operations.maintenance_inspection import inspect_maintenance
from housekeeping.operations.purge import purge
from housekeeping.policies.result import RunResult


@dataclass(frozen=True)
class Operation:
    """An operation of the engine. Each takes the kind of policy its settings make."""

    run: Callable[[Any, Request, Surroundings], RunResult]
    inspect: Callable[[Any], Inspected]
    """everything a run would look at, and not a row changed; raises what the run would raise"""
    takes_rows: bool = False
    """whether it counts rows in a dry run, and keeps to a limit on them"""


_PURGE = Operation(purge, inspect_purge, takes_rows=True)

OPERATIONS: dict[str, Operation] = {
    "occurrences.retention": _PURGE,
    "occurrences.archive": _PURGE,
    "dead_letters.cleanup": _PURGE,
    "tables.purge": _PURGE,
    "tables.archive": _PURGE,
    "database.drop_expired_archives": Operation(drop_expired_archives, inspect_archive_expiry),
    "database.maintain": Operation(maintain, inspect_maintenance),
}

_ABOUT_ROWS = {"exact": "counts rows", "confirmed": "lifts a limit on rows"}


def without_effect(operation: str, asked: Mapping[str, object]) -> tuple[str, str] | None:
    """Return what an operation would accept and not heed, and what that is for; None: nothing.

    Whoever gave it expects that it does something. Of a task that is no operation nothing is known.
    """
    known = OPERATIONS.get(operation)
    if known is None or known.takes_rows:
        return None
    return next(((word, what) for word, what in _ABOUT_ROWS.items() if asked.get(word)), None)
