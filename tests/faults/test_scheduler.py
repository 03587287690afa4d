"""What happens to the schedule when Redis, a beat or an entry fails, on real processes.

No worker runs: what beat has sent is counted in the queue.
"""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from celery import Celery
from celery.schedules import schedule as interval
from redbeat.schedulers import RedBeatSchedulerEntry, ensure_conf, get_redis

from embedded.valkey import ValkeyServer
from housekeeping.stores.redis.schedule_edits import ScheduleEdit, ScheduleEdits
from tasks import schedule_editing
from tests.conditions import stays_true, wait_until
from tests.faults.stack import Stack

_SECONDLY = {"every": 1}
_HOURLY = {"every": 3600}
_LOCK_S = 3  # the probe's redbeat_lock_timeout
_LOOP_S = 0.5  # and its beat_max_loop_interval


def _goes_on(stack: Stack, entry: str, within_seconds: float) -> None:
    before = stack.sent(entry)
    wait_until(lambda: stack.sent(entry) > before, within_seconds, otherwise=stack.logs)


def _stored(stack: Stack, entry: str, part: str = "definition") -> dict[str, Any]:
    with stack.client() as client:
        text = client.hget(f"redbeat:{entry}", part)
    return dict(json.loads(text)) if text else {}


@contextmanager
def _editor(stack: Stack, *entries: str) -> Iterator[Celery]:
    """An app as the command line has it: same schedule, same Redis."""
    app = Celery("editor", set_as_current=False)
    app.conf.redbeat_redis_url = stack.redbeat_url
    app.conf.redbeat_redis_options = {"socket_timeout": 5}
    app.conf.beat_schedule = {
        name: {"task": "probe.tick", "schedule": interval(timedelta(seconds=1)), "args": [name]}
        for name in entries
    }
    ensure_conf(app)
    yield app
    get_redis(app).close()


def test_beat_outlives_a_killed_redis(stack: Stack) -> None:
    beat = stack.beat({"tick": _SECONDLY})
    _goes_on(stack, "tick", 10)

    stack.valkey.kill()
    wait_until(lambda: not beat.running or beat.said("trying on"), 20, otherwise=stack.logs)
    stack.valkey.start()

    _goes_on(stack, "tick", 20)
    assert beat.running


def test_beat_waits_for_a_redis_that_is_not_there_yet(stack: Stack) -> None:
    stack.valkey.kill()
    beat = stack.beat({"tick": _SECONDLY})
    wait_until(lambda: not beat.running or beat.said("trying on"), 20, otherwise=stack.logs)

    stack.valkey.start()

    _goes_on(stack, "tick", 20)


def test_beat_writes_a_flushed_schedule_again_and_remembers_its_last_runs(stack: Stack) -> None:
    beat = stack.beat({"tick": _SECONDLY, "hourly": _HOURLY})
    _goes_on(stack, "tick", 10)
    hourly = _stored(stack, "hourly", "meta")["last_run_at"]
    runs = _stored(stack, "tick", "meta")["total_run_count"]

    with stack.client() as client:
        client.flushall()

    _goes_on(stack, "tick", 10)
    assert beat.running
    assert _stored(stack, "hourly", "meta")["last_run_at"] == hourly
    assert _stored(stack, "hourly", "meta")["total_run_count"] == 0
    assert _stored(stack, "tick", "meta")["total_run_count"] > runs


def test_of_two_beats_one_sends_and_the_other_takes_over_when_it_is_killed(stack: Stack) -> None:
    leader = stack.beat({"tick": _SECONDLY})
    _goes_on(stack, "tick", 10)
    heir = stack.beat({"tick": _SECONDLY})
    begun, before = time.monotonic(), stack.sent("tick")
    wait_until(lambda: stack.sent("tick") >= before + 3, 10, otherwise=stack.logs)
    assert time.monotonic() - begun > 2  # two that send would need half of that
    assert not heir.said("Sending due task")

    leader.kill()

    killed = time.monotonic()
    _goes_on(stack, "tick", 20)
    assert heir.said("Sending due task")
    assert time.monotonic() - killed < _LOCK_S + 4


def test_a_leader_that_was_frozen_stands_by_when_it_wakes_up(stack: Stack) -> None:
    frozen = stack.beat({"tick": _SECONDLY})
    _goes_on(stack, "tick", 10)
    heir = stack.beat({"tick": _SECONDLY})

    frozen.send(signal.SIGSTOP)
    wait_until(lambda: heir.said("Sending due task"), 15, otherwise=stack.logs)
    frozen.send(signal.SIGCONT)

    frozen.wait_until_it_says("the lock is lost")
    sent = frozen.log().count("Sending due task")
    _goes_on(stack, "tick", 10)
    assert frozen.running
    assert frozen.log().count("Sending due task") == sent


def test_a_leader_that_stops_hands_over_at_once(stack: Stack) -> None:
    leader = stack.beat({"tick": _SECONDLY}, redbeat_lock_timeout=60)
    _goes_on(stack, "tick", 10)
    heir = stack.beat({"tick": _SECONDLY}, redbeat_lock_timeout=60)

    leader.send(signal.SIGTERM)

    wait_until(lambda: heir.said("Sending due task"), 10, otherwise=stack.logs)


def test_a_run_that_could_not_be_sent_is_sent_when_the_broker_is_back(stack: Stack) -> None:
    with ValkeyServer() as redbeat:
        stack.redbeat_url = redbeat.url()
        beat = stack.beat({"tick": _SECONDLY, "hourly": _HOURLY}, task_publish_retry=False)
        _goes_on(stack, "tick", 10)  # it has a connection

        stack.valkey.kill()
        with _editor(stack, "hourly") as app:
            hourly = RedBeatSchedulerEntry.from_key("redbeat:hourly", app=app)
            hourly.reschedule(datetime.now(UTC) - timedelta(hours=2))
        beat.wait_until_it_says("Couldn't apply scheduled task hourly")
        stack.valkey.start()

        wait_until(lambda: stack.sent("hourly"), 20, otherwise=stack.logs)
        assert stays_true(lambda: stack.sent("hourly") == 1, 2 * _LOOP_S)
        stack.end()


def test_beat_keeps_its_lock_while_it_has_no_broker(stack: Stack) -> None:
    with ValkeyServer() as redbeat:
        stack.redbeat_url = redbeat.url()
        stack.valkey.kill()
        beat = stack.beat({"tick": _SECONDLY})
        over = time.monotonic() + _LOCK_S + 1
        wait_until(lambda: time.monotonic() > over, _LOCK_S + 2)

        stack.valkey.start()

        for _ in range(2):
            _goes_on(stack, "tick", 10)
        assert beat.running
        assert not beat.said("the lock is lost")
        stack.end()


def test_a_broken_entry_is_put_right_and_the_others_go_on(stack: Stack) -> None:
    beat = stack.beat({"tick": _SECONDLY, "broken": _SECONDLY})
    _goes_on(stack, "broken", 10)
    with stack.client() as client:
        client.hset("redbeat:added", mapping={"definition": "{", "meta": "{"})
        client.zadd("redbeat::schedule", {"redbeat:added": 1})
        client.hset("redbeat:broken", "definition", "{")

    _goes_on(stack, "tick", 10)
    _goes_on(stack, "broken", 10)
    assert beat.running
    with stack.client() as client:
        assert client.zscore("redbeat::schedule", "redbeat:added") is None


def test_an_edit_reaches_a_running_beat_and_survives_its_restart(stack: Stack) -> None:
    schedule = {"tick": _SECONDLY, "other": _SECONDLY}
    beat = stack.beat(schedule)
    _goes_on(stack, "tick", 10)

    with _editor(stack, *schedule) as app:
        schedule_editing.set_enabled(app, "tick", enabled=False)
        _goes_on(stack, "other", 5)
        silent_since = stack.sent("tick")
        beat.stop()
        stack.beat(schedule)
        _goes_on(stack, "other", 10)
        assert stays_true(lambda: stack.sent("tick") == silent_since, 1.5), stack.logs()

        schedule_editing.set_enabled(app, "tick", enabled=True)
        _goes_on(stack, "tick", 5)


def test_an_entry_that_leaves_the_code_leaves_redis_and_takes_its_edit_along(stack: Stack) -> None:
    beat = stack.beat({"stays": _SECONDLY, "leaves": _HOURLY})
    _goes_on(stack, "stays", 10)
    with stack.client() as client:
        edits = ScheduleEdits(client)
        edits.save("leaves", ScheduleEdit(cron="15 2 * * *"))
        beat.stop()

        beat = stack.beat({"stays": _SECONDLY})

        wait_until(lambda: not _stored(stack, "leaves"), 10, otherwise=stack.logs)
        wait_until(lambda: not edits.all(), 5, otherwise=stack.logs)
    assert beat.said("'leaves' has left the code")


def test_a_standby_with_older_code_leaves_the_schedule_alone(stack: Stack) -> None:
    stack.beat({"tick": _SECONDLY, "new": _HOURLY})
    _goes_on(stack, "tick", 10)

    standby = stack.beat({"tick": _SECONDLY})

    assert stays_true(lambda: bool(_stored(stack, "new")), 3 * _LOOP_S), standby.log()
    assert standby.running
