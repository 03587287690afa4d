"""Becoming the one run that may write to a table: the fence in the database itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from housekeeping.policies.errors import LeaseLost
from housekeeping.policies.pace import Pace
from housekeeping.stores.postgres.catalog import TableFacts
from housekeeping.stores.postgres.conditions import Condition, condition_of
from housekeeping.stores.postgres.connection import guarded
from housekeeping.stores.postgres.window_ledger import WindowLedger, take_fence, wait_for_fence

_PATIENCE = timedelta(seconds=10)  # a stale batch ends within its statement_timeout of 5 s


@dataclass(frozen=True)
class Writer:
    """The right to write, and what the last run remembered."""

    ledger: WindowLedger
    sizes: dict[str, int]


def become_writer(connection: Connection, facts: TableFacts, run_id: UUID, pace: Pace) -> Writer:
    """Take the table's fence; any run that held it before can't commit another window.

    Queues behind a batch that is under way; while we queue, an older run's next batch can't slip in
    before us. Raises LeaseLost when the batch does not end.
    """
    with fenced(connection, facts, pace):
        fence, sizes = take_fence(connection, facts.label, run_id)
    return Writer(WindowLedger(run_id, facts.label, fence, facts.oid), sizes)


@contextmanager
def fenced(connection: Connection, facts: TableFacts, pace: Pace) -> Iterator[None]:
    """Run a block in one transaction in which nobody deletes from the table.

    Raises LeaseLost when a batch that is under way does not end.
    """
    patient = replace(pace, lock_timeout=_PATIENCE, batch_target=_PATIENCE)
    try:
        with guarded(connection, patient):
            wait_for_fence(connection, facts.oid)
            yield
    except DBAPIError as error:
        if condition_of(error) not in (Condition.CONTENDED, Condition.TOO_SLOW):
            raise
        reason = "another session keeps deleting from the table"
        raise LeaseLost(target=facts.label, reason=reason) from error
