"""Sends for other workers to share a run: one message each, as a Celery group."""

import logging
from uuid import UUID

from celery import Celery, group

from housekeeping.policies.policy import Policy

_log = logging.getLogger("housekeeping.shards")
# Not `tasks.`: nobody runs, schedules or pauses it by itself.
SHARE = "housekeeping.shards.work"


class Recruiter:
    """Asks over the broker. Nobody waits for those who come."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def __call__(self, policy: Policy, run_id: UUID, count: int) -> None:
        """Send `count` messages. A broker that is away costs the run its help, not its work."""
        asked = {"operation": policy.operation, "policy": policy.name, "run_id": str(run_id)}
        messages = group(self._app.signature(SHARE, kwargs=asked) for _ in range(count))
        try:
            messages.apply_async(
                # Who comes after the run's time is over finds nothing to do.
                expires=policy.pace.time_budget.total_seconds(),
                retry=False,
                add_to_parent=False,
            )
        except Exception as error:  # noqa: BLE001 - whatever the broker says, the run goes on alone
            _log.warning("%s: nobody could be asked to share the run: %s", policy.name, error)
