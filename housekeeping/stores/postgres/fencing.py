"""Becoming the one run that may write to a table: the fence in the database itself."""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection

from housekeeping.policies.errors import LeaseLost
from housekeeping.policies.pace import Pace
from housekeeping.stores.postgres.catalog import TableFacts
from housekeeping.stores.postgres.connection import guarded
from housekeeping.stores.postgres.window_ledger import WindowLedger, take_fence, try_fence

_TRIES = 100
_PAUSE_SECONDS = 0.1  # together 10 s: a stale batch ends within its statement_timeout of 5 s


@dataclass(frozen=True)
class Writer:
    """The right to write, and what the last run remembered."""

    ledger: WindowLedger
    sizes: dict[str, int]


def become_writer(
    connection: Connection,
    facts: TableFacts,
    run_id: UUID,
    pace: Pace,
    sleep: Callable[[float], None],
) -> Writer:
    """Take the table's fence; any run that held it before can't commit another window.

    Waits for a batch that is under way. Raises LeaseLost when it does not end.
    """
    for _ in range(_TRIES):
        with guarded(connection, pace):
            if try_fence(connection, facts.oid):
                fence, sizes = take_fence(connection, facts.label, run_id)
                return Writer(WindowLedger(run_id, facts.label, fence), sizes)
        sleep(_PAUSE_SECONDS)
    raise LeaseLost(target=facts.label, reason="another session keeps deleting from the table")
