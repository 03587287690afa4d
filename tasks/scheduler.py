"""A RedBeat scheduler that survives what happens to Redis.

RedBeat 2.4.2 as it comes (each of these was seen):

    exits when Redis is unreachable in a tick, or its lock is lost, expired or flushed
    rewrites and deletes shared entries before it owns the lock: a standby with older code
      removed an entry under the running leader
    notes a run before it sends it: a publish that fails loses the run until the next slot
    exits on one entry whose hash can't be decoded, with all the others

Here a beat takes the lock in its ticks, stands by without it, and touches the shared schedule
only while it holds it. What operators have edited (`tasks.schedule_editing`) is applied on top of
what the code says.
"""

import time
from datetime import UTC, datetime
from typing import Any

from celery.signals import beat_init
from celery.utils.log import get_logger
from kombu.exceptions import OperationalError
from redbeat.decoder import to_timestamp
from redbeat.schedulers import (
    LUA_EXTEND_TO_SCRIPT,
    RedBeatScheduler,
    RedBeatSchedulerEntry,
    acquire_distributed_beat_lock,
    get_redis,
)
from redis.exceptions import LockError, RedisError
from redis.lock import Lock

from housekeeping.stores.redis.schedule_edits import ScheduleEdit, ScheduleEdits
from tasks.schedule_editing import move_last_run, with_edit

_log = get_logger("celery.beat")

STANDBY_POLL_S = 1.0  # how long a free lock stays unnoticed; one SET a second is nothing to Redis
_TROUBLE = (RedisError, OSError, OperationalError)
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class ResilientScheduler(RedBeatScheduler):  # type: ignore[misc]  # RedBeat has no types
    """RedBeat that waits for Redis and for its lock instead of exiting."""

    lock: Lock | None

    def __init__(self, app: Any, **options: Any) -> None:
        # That would wait for the lock while beat starts, deaf to everything else.
        beat_init.disconnect(acquire_distributed_beat_lock)
        self._installed = False
        self._led_at = 0.0
        self._unreachable_since: float | None = None
        self._known: dict[str, tuple[datetime, int]] = {}
        """Last runs, and how many there were, in case Redis comes back empty."""
        self._unsent: dict[str, tuple[datetime | None, datetime]] = {}
        """Runs noted but not sent: when the entry ran before, and what was noted."""
        super().__init__(app, **options)
        self._edits = ScheduleEdits(get_redis(app))

    def setup_schedule(self) -> None:
        """Do nothing yet: the schedule is shared, and here the lock is not ours."""

    def tick(self, **options: Any) -> float:
        """Send what is due, if we lead; return after how many seconds to come again."""
        try:
            if not self._lead():
                return float(min(self.max_interval, STANDBY_POLL_S))
            self._take_back_unsent()
            wait = super().tick(**options)
        except LockError as error:
            _log.warning("beat: the lock is lost (%s), standing by", error)
            self.lock = None
            return 0.0
        except _TROUBLE as error:
            self._note_outage(error)
            return float(min(self.max_interval, STANDBY_POLL_S))
        self._note_recovery()
        return float(wait)

    def close(self) -> None:
        """Give the lock to a standby at once; without Redis it has to expire."""
        try:
            if self.lock is not None:
                self._take_back_unsent()
            super().close()
        except _TROUBLE as error:
            _log.warning("beat: the lock could not be released: %s", error)

    # -- leading ---------------------------------------------------------------------------------

    def _lead(self) -> bool:
        """Whether we hold the lock, after trying to get it, and the schedule is in place."""
        if self.lock_key and self.lock is None:
            lock = self._new_lock()
            if not lock.acquire(blocking=False):
                return False
            _log.info("beat: acquired the lock, leading")
            self.lock, self._installed = lock, False
            if time.monotonic() - self._led_at > self.lock_timeout:
                self._known.clear()  # somebody else may have led since
        if not self._installed:
            self._keep_lock()
            self._install()
        return True

    def _new_lock(self) -> Lock:
        client = get_redis(self.app)
        client = getattr(client, "wrapped_connection", client)  # a lock is no use to its retries
        lock: Lock = client.lock(self.lock_key, timeout=self.lock_timeout, thread_local=False)
        # redis-py's own would add to the time left.
        lock.lua_extend = client.register_script(LUA_EXTEND_TO_SCRIPT)
        return lock

    def _keep_lock(self) -> None:
        """Prolong the lock. Raises LockError if it is no longer ours."""
        if self.lock is not None:
            self.lock.extend(int(self.lock_timeout))
            self._led_at = time.monotonic()

    def _note_outage(self, error: Exception) -> None:
        self._installed = False  # nobody knows what Redis will remember
        if self._unreachable_since is None:
            self._unreachable_since = time.monotonic()
            _log.warning("beat: Redis or the broker fails, trying on: %s", error)

    def _note_recovery(self) -> None:
        if self._unreachable_since is not None:
            seconds = time.monotonic() - self._unreachable_since
            _log.info("beat: works again after %.0f s", seconds)
            self._unreachable_since = None

    # -- the schedule ----------------------------------------------------------------------------

    def _install(self) -> None:
        """Bring the shared schedule to what the code and the operators say."""
        super().setup_schedule()
        for name in self._edits.all().keys() - self.app.conf.beat_schedule.keys():
            _log.warning("beat: %r has left the code, its edit is removed", name)
            self._edits.forget(name)
        self._installed = True

    def update_from_dict(self, dict_: dict[str, Any]) -> None:
        """Write entries of the code to Redis; their last runs stay."""
        edits = self._edits.all()
        for name, definition in dict_.items():
            try:
                entry = self._maybe_entry(name, definition)
            except Exception:  # noqa: BLE001 - whatever it is, the other entries go on
                _log.exception("beat: the entry %r of the code can't be scheduled", name)
                continue
            entry = _edited(entry, edits.get(name))
            try:
                stored = self._read(entry.key)
            except KeyError:
                entry.last_run_at, runs = self._known.get(name, (entry.last_run_at, 0))
                entry.delete()  # what is left of a broken one
                entry.save()
                entry.total_run_count = runs
                move_last_run(entry, entry.last_run_at)
            else:
                entry.last_run_at, runs = stored.last_run_at, stored.total_run_count
                entry.save()
            self._known[name] = entry.last_run_at, runs

    @property
    def schedule(self) -> dict[str, RedBeatSchedulerEntry]:
        """Return the entries that are due, and the next one to come before the next tick."""
        client, zset = get_redis(self.app), self.app.redbeat_conf.schedule_key
        now = to_timestamp(self.app.now())
        keys = client.zrangebyscore(zset, 0, now)
        keys += client.zrangebyscore(zset, f"({now}", now + self.max_interval, start=0, num=1)
        entries = {}
        for key in keys:
            try:
                entry = self._read(key)
            except KeyError:
                self._put_right(key)
            else:
                entries[entry.name] = entry
        return entries

    def _read(self, key: str) -> RedBeatSchedulerEntry:
        """Return an entry from Redis. Raises KeyError when it is not there or can't be read."""
        try:
            return self.Entry.from_key(key, app=self.app)
        except (KeyError, *_TROUBLE):
            raise
        except Exception as error:
            _log.error("beat: the entry at %s can't be read and is skipped: %r", key, error)
            raise KeyError(key) from error

    def _put_right(self, key: str) -> None:
        for name, definition in self.app.conf.beat_schedule.items():
            if self.Entry.generate_key(self.app, name) == key:
                _log.warning("beat: the entry %r is written again from the code", name)
                self.Entry(name, app=self.app).delete()
                self.update_from_dict({name: definition})
                return
        _log.warning("beat: the entry at %s is unscheduled until somebody saves it again", key)
        get_redis(self.app).zrem(self.app.redbeat_conf.schedule_key, key)

    # -- sending ---------------------------------------------------------------------------------

    def maybe_due(self, entry: RedBeatSchedulerEntry, **options: Any) -> float:
        """Send an entry if it is due; return in how many seconds it will be.

        The lock is checked each time: sending to a slow broker may have taken longer than it lasts.
        """
        self._keep_lock()
        try:
            return float(super().maybe_due(entry, **options))
        except Exception:  # noqa: BLE001 - a schedule's own code; the other entries go on
            _log.exception("beat: when the entry %r is due can't be told, skipped", entry.name)
            return float(self.max_interval)

    def reserve(self, entry: RedBeatSchedulerEntry) -> RedBeatSchedulerEntry:
        """Note the run that is about to be sent."""
        noted = entry.default_now()
        self._unsent[entry.name] = (entry.last_run_at, noted)
        return entry.next(last_run_at=noted)

    def apply_async(self, entry: RedBeatSchedulerEntry, **options: Any) -> Any:
        """Send an entry. If that fails, the run stays due and the next tick tries again."""
        result = super().apply_async(entry, **options)
        if entry.name in self._unsent:
            _, noted = self._unsent.pop(entry.name)
            self._known[entry.name] = noted, entry.total_run_count + 1
        return result

    def _ensure_connected(self) -> Any:
        """Try the broker once. The stock version waits for it here, until the lock is long lost."""
        return self.connection.ensure_connection(max_retries=0)

    def _take_back_unsent(self) -> None:
        """Set entries whose message could not be sent back to before they were noted as run.

        Unless somebody else has led in between, and noted a run of his own.
        """
        for name, (before, noted) in list(self._unsent.items()):
            try:
                entry = self._read(self.Entry.generate_key(self.app, name))
            except KeyError:
                entry = None
            if entry is not None and entry.last_run_at == noted:
                entry.total_run_count -= 1
                move_last_run(entry, before or _LONG_AGO)
            del self._unsent[name]


def _edited(entry: RedBeatSchedulerEntry, edit: ScheduleEdit | None) -> RedBeatSchedulerEntry:
    try:
        return with_edit(entry, edit)
    except ValueError as error:
        _log.error("beat: the edit of %r is ignored: %s", entry.name, error)
        return with_edit(entry, None)
