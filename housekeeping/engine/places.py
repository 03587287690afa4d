"""A place on a database: at most so many runs, and workers that share one, work there at once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from uuid import uuid4

from housekeeping.engine.pacing import Rest
from housekeeping.engine.run import Surroundings
from housekeeping.policies.events import RunWaiting
from housekeeping.policies.policy import Policy
from housekeeping.policies.result import StopReason
from housekeeping.stores.postgres.connection import place
from housekeeping.stores.redis.semaphore import Place

_STEP_SECONDS = 0.5
_TELL_EVERY_SECONDS = 5.0


@contextmanager
def placed(
    policy: Policy,
    run_id: str,
    around: Surroundings,
    objection: Callable[[], StopReason | None],
    patience: timedelta | None = None,
) -> Iterator[StopReason | None]:
    """Hold a place on the policy's database for a block.

    Yields None once there is one; `throttled` when none fell free within `patience`, by default the
    policy's time budget, or what was objected meanwhile.

    Raises StoreUnreachable when Redis does not answer.
    """
    database = place(policy.database_url)
    token = f"{run_id} {uuid4().hex}"
    seconds = policy.pace.lease_ttl.total_seconds()
    with Place(
        around.redis, database, token, most=around.workers_per_database, seconds=seconds
    ) as ours:
        patience = policy.pace.time_budget if patience is None else patience
        yield _wait(ours, policy, run_id, around, objection, patience)


def _wait(
    ours: Place,
    policy: Policy,
    run_id: str,
    around: Surroundings,
    objection: Callable[[], StopReason | None],
    patience: timedelta,
) -> StopReason | None:
    clock, rest = around.clock, Rest(1.0, around.clock, objection)
    begun = clock.monotonic()
    told = begun - _TELL_EVERY_SECONDS
    while not ours.take():
        now = clock.monotonic()
        if (reason := objection()) is not None:
            return reason
        if now - begun >= patience.total_seconds():
            return StopReason.THROTTLED
        if now - told >= _TELL_EVERY_SECONDS:
            told = now
            around.events.publish(
                RunWaiting(
                    operation=policy.operation,
                    policy=policy.name,
                    run_id=run_id,
                    cause=f"one of {around.workers_per_database} places on "
                    f"{place(policy.database_url)}",
                    seconds=round(now - begun, 1),
                )
            )
        rest.pause(_STEP_SECONDS)
    return None
