"""What a worker does that was asked to share another's run."""

import logging
from typing import Any
from uuid import UUID

from celery import Task

from housekeeping.operations.shared_runs.sharing import share
from housekeeping.policies.errors import HousekeepingError
from housekeeping.policies.events import log_event
from housekeeping.policies.purge import PurgePolicy
from tasks.application import app
from tasks.configuration import current_suite
from tasks.metrics import count_event
from tasks.recruiting import SHARE
from tasks.running import run_by, surroundings

_log = logging.getLogger("housekeeping.shards")


# No retries: what it leaves, its run's owner and the other workers do.
@app.task(name=SHARE, bind=True, max_retries=0)
def work(self: Task, operation: str, policy: str, run_id: str) -> dict[str, Any]:  # noqa: ARG001
    """Clear ranges of a run until none is left; the run that was split sends it, nobody else.

    Danger:  none of its own: it does what the run would do alone, under the run's fence.
    Result:  rows and ranges this worker did, which the run's own result counts too; why it left.
    """
    around = surroundings((log_event, count_event))
    try:
        (chosen,) = current_suite().policies(operation, policy)
        if not isinstance(chosen, PurgePolicy):
            return _left(f"{operation} is not shared")
        shared = share(chosen, UUID(run_id), run_by(), around)
    except HousekeepingError as error:
        # The run itself meets the same and tells; here a configuration may be older than there.
        _log.warning("%s: a worker could not share run %s: %s", policy, run_id, error.message)
        return _left(error.message)
    return {"rows": shared.rows, "ranges": shared.ranges, "ended": shared.ended}


def _left(reason: str) -> dict[str, Any]:
    return {"rows": 0, "ranges": 0, "ended": reason}
