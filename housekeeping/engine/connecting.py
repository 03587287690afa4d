"""The connection a run works on, from before anything has begun."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from housekeeping.engine.run import Request
from housekeeping.policies.errors import RunInterrupted
from housekeeping.policies.policy import Policy
from housekeeping.stores.postgres.conditions import Condition, condition_of, sentence
from housekeeping.stores.postgres.connection import connected

_PASSING = {Condition.CONTENDED, Condition.TOO_SLOW, Condition.CONNECTION_LOST}


def application_of(policy: Policy, run_id: UUID) -> str:
    """Return what a run's sessions are called in pg_stat_activity."""
    return f"hk:{policy.operation}:{policy.name}:{str(run_id)[:8]}"


@contextmanager
def connected_for(policy: Policy, request: Request) -> Iterator[Connection]:
    """Connect to the policy's database for a block: all of a run.

    Raises StoreUnreachable, and RunInterrupted where the block fails for what passes, before anything
    has begun: a lock on the table or the ledger, a connection that went away.
    """
    application = application_of(policy, request.run_id)
    with connected(policy.database_url, application) as connection:
        try:
            yield connection
        except DBAPIError as error:
            if condition_of(error) in _PASSING:
                raise RunInterrupted(run_id=request.run_id, reason=sentence(error)) from error
            raise
