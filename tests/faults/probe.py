"""A small Celery app for fault tests: its tasks write down when they start and end.

`celery -A tests.faults.probe worker` (or `beat`); everything comes from the environment:

    PROBE_BROKER    URL of the broker
    PROBE_REDBEAT   URL of RedBeat's Redis; default: the broker's
    PROBE_JOURNAL   file the tasks write to, one JSON object a line
    PROBE_SCHEDULE  the beat schedule, {"name": {"cron": "* * * * *"} or {"every": 1.5}} as JSON
    PROBE_STOCK     anything: stock Celery and RedBeat. Run so, every test of a guarantee fails.
    PROBE_SETTINGS  further Celery settings as JSON; wins over those below
"""

import json
import os
import time
from typing import Any

from celery import Celery
from celery.schedules import crontab

VISIBILITY_TIMEOUT_S = 4

_stock = bool(os.environ.get("PROBE_STOCK"))
_broker = os.environ.get("PROBE_BROKER", "redis://127.0.0.1:1/0")

app = Celery("probe", broker=_broker)
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={
        "visibility_timeout": VISIBILITY_TIMEOUT_S,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        "socket_timeout": 5,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
    },
    redbeat_redis_url=os.environ.get("PROBE_REDBEAT", _broker),
    redbeat_redis_options={"socket_timeout": 5},
    redbeat_lock_timeout=3,
    beat_max_loop_interval=0.5,
    beat_scheduler="redbeat.RedBeatScheduler",
)
if not _stock:
    app.conf.worker_consumer = "tasks.consumer:ConnectionKeepingConsumer"
    app.conf.beat_scheduler = "tasks.scheduler:ResilientScheduler"
    app.steps["consumer"].add("tasks.visibility:VisibilityHeartbeat")


def _entry(name: str, when: dict[str, Any]) -> dict[str, Any]:
    schedule = crontab.from_string(when["cron"]) if "cron" in when else when["every"]
    return {"task": "probe.tick", "schedule": schedule, "args": [name]}


app.conf.beat_schedule = {
    name: _entry(name, when)
    for name, when in json.loads(os.environ.get("PROBE_SCHEDULE", "{}")).items()
}
for _name, _value in json.loads(os.environ.get("PROBE_SETTINGS", "{}")).items():
    if isinstance(_value, dict):
        app.conf[_name] = {**app.conf[_name], **_value}
    else:
        app.conf[_name] = _value


def _note(event: str, **facts: Any) -> None:
    line = json.dumps({"event": event, "at": time.time(), "pid": os.getpid(), **facts})
    with open(os.environ["PROBE_JOURNAL"], "a") as journal:  # noqa: PTH123  # one write, appended
        journal.write(line + "\n")


@app.task(bind=True, name="probe.work")  # type: ignore[untyped-decorator]
def work(self: Any, name: str, seconds: float, ballast: str = "") -> None:
    """Take that long, and write down the beginning and the end; `ballast` is for the message."""
    redelivered = self.request.delivery_info["redelivered"]
    _note("started", name=name, redelivered=redelivered, worker=self.request.hostname)
    time.sleep(seconds)
    _note("ended", name=name)


@app.task(name="probe.tick")  # type: ignore[untyped-decorator]
def tick(entry: str) -> None:
    """Write down that a schedule entry has fired."""
    _note("ticked", name=entry)
