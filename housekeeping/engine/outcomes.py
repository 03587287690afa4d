"""How a run's work ended: a stop reason, an error told in a sentence, or an interruption."""

import logging
from collections.abc import Callable

from sqlalchemy.exc import DBAPIError

from housekeeping.engine.run import Request
from housekeeping.policies.errors import (
    LeaseLost,
    LeaseTaken,
    PolicyRefused,
    RunHalted,
    RunInterrupted,
    StoreUnreachable,
    TableBlocked,
    TableRewritten,
)
from housekeeping.policies.policy import Policy
from housekeeping.policies.result import StopReason
from housekeeping.stores.postgres.conditions import Condition, condition_of, sentence

_log = logging.getLogger("housekeeping.run")


class ConnectionLost(Exception):
    """The database went away between two statements; the run can be taken up again."""


def ended_by(
    work: Callable[[], StopReason], policy: Policy, request: Request
) -> tuple[StopReason, str | None]:
    """Do the work; return why it ended, and what went wrong if something did.

    Raises PolicyRefused as it is, and RunInterrupted for what interrupted a run that goes on when
    it is run again, where whoever asked will do so.
    """
    try:
        return work(), None
    except KeyboardInterrupt:
        return StopReason.STOPPED, None
    except PolicyRefused:
        raise
    except RunHalted as halted:
        return StopReason.STOPPED, halted.message
    except LeaseTaken as error:
        return StopReason.LOCK_LOST, error.message
    except Exception as error:
        interruption = _interruption(error)
        if interruption is None:
            _log.exception("%s: the run failed", policy.name)
            return StopReason.ERROR, told(error)
        if request.will_retry:
            raise RunInterrupted(run_id=request.run_id, reason=interruption) from error
        lost = isinstance(error, LeaseLost)
        return StopReason.LOCK_LOST if lost else StopReason.ERROR, interruption


def _interruption(error: Exception) -> str | None:
    """Say what interrupted a run that could go on from its last window; None for other errors."""
    if isinstance(error, LeaseLost | StoreUnreachable | TableRewritten | TableBlocked):
        return error.message
    if isinstance(error, ConnectionLost):
        return f"the database connection was lost: {error}"
    if isinstance(error, DBAPIError) and condition_of(error) is Condition.CONNECTION_LOST:
        return f"the database connection was lost: {sentence(error)}"
    return None


def told(error: Exception) -> str:
    """Return an error as one sentence without row data."""
    if isinstance(error, DBAPIError):
        return sentence(error)
    return f"{type(error).__name__}: {error}".rstrip(": ")
