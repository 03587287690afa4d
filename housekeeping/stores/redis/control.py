"""Live control: flags an operator sets and every run reads before each window.

housekeeping:paused         SET of task names, `*` for all
housekeeping:stop:RUN_ID    "1", forgotten after a day
"""

from datetime import timedelta

from redis import Redis
from redis.exceptions import ConnectionError, TimeoutError  # noqa: A004 - redis-py names them so

from housekeeping.policies.result import StopReason

EVERY_TASK = "*"
_PAUSED = "housekeeping:paused"
_FORGET_STOP = timedelta(days=1)


class Control:
    """The operator's flags."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    def pause(self, task: str | None = None) -> None:
        """Pause a task, or all of them: runs leave within one window, and none starts."""
        self._client.sadd(_PAUSED, task or EVERY_TASK)

    def resume(self, task: str | None = None) -> bool:
        """Lift a pause; without a task, every pause. Return whether there was one."""
        if task is None:
            return bool(self._client.delete(_PAUSED))
        return bool(self._client.srem(_PAUSED, task))

    def paused(self) -> set[str]:
        """Return the names of paused tasks, with `*` among them when all are."""
        members = self._client.smembers(_PAUSED)
        return {m.decode() if isinstance(m, bytes) else str(m) for m in members}

    def stop(self, run_id: str) -> None:
        """Have one run leave within one window."""
        self._client.set(_stop_key(run_id), "1", ex=_FORGET_STOP)

    def objection(self, task: str, run_id: str) -> StopReason | None:
        """Return why a run should leave now, or None.

        An unreachable Redis is no objection here: the lease, which expires, decides about that.
        """
        pipeline = self._client.pipeline(transaction=False)
        pipeline.exists(_stop_key(run_id))
        pipeline.smismember(_PAUSED, [EVERY_TASK, task])
        try:
            stopped, (all_paused, task_paused) = pipeline.execute()
        except (ConnectionError, TimeoutError):
            return None
        if stopped:
            return StopReason.STOPPED
        return StopReason.PAUSED if all_paused or task_paused else None


def _stop_key(run_id: str) -> str:
    return f"housekeeping:stop:{run_id}"
