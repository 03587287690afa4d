"""Prometheus metrics of the worker: one subscriber to the event stream.

    housekeeping_runs_total{operation,policy,stop_reason}
    housekeeping_rows_total{operation,policy,reason}       committed rows only
    housekeeping_window_seconds{operation,policy}          histogram; one transaction each
    housekeeping_rows_left_behind_total{operation,policy}
    housekeeping_wait_seconds_total{operation,policy,signal}   stopped or slowed down for it
    housekeeping_last_success_timestamp_seconds{operation,policy}

Served on `metrics_address`:`metrics_port` by the worker's main process for all its children.
"""

import atexit
import logging
import os
import shutil
import tempfile
from functools import cache
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    start_http_server,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector

from housekeeping.policies.events import Event, RunStopped, WindowCommitted, WindowPassed
from tasks.configuration import current_suite

_log = logging.getLogger("housekeeping.metrics")
_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
_WINDOW_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


def prepare() -> None:
    """Name the directory the children share; before any of them is forked."""
    if current_suite().metrics_port is None:
        return
    if _DIRECTORY not in os.environ:
        os.environ[_DIRECTORY] = tempfile.mkdtemp(prefix="housekeeping-metrics-")
        atexit.register(_remove, os.environ[_DIRECTORY], os.getpid())
    # prometheus_client chooses at import whether values are shared, and Flower, where it is
    # installed, imports it for every `celery` command: long before this.
    values.ValueClass = values.get_value_class()  # type: ignore[no-untyped-call]


def _remove(directory: str, owner: int) -> None:
    if os.getpid() == owner:  # a forked child inherits what runs at exit
        shutil.rmtree(directory, ignore_errors=True)


def serve() -> None:
    """Serve the metrics of all children, when a port is set."""
    suite = current_suite()
    if suite.metrics_port is None:
        return
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    try:
        start_http_server(suite.metrics_port, addr=suite.metrics_address, registry=registry)
    except OSError as error:
        _log.error(
            "metrics_port %s can't be served: %s; the worker goes on without",
            suite.metrics_port,
            error,
        )
        return
    _log.info("metrics are served on %s:%s", suite.metrics_address, suite.metrics_port)


def count_event(event: Event) -> None:
    """Count an event, when a port is set."""
    if current_suite().metrics_port is None:
        return
    meters, who = _meters(), (event.operation, event.policy)
    if isinstance(event, WindowCommitted):
        meters["window"].labels(*who).observe(event.seconds)
    elif isinstance(event, WindowPassed):
        meters["left"].labels(*who).inc(event.rows)
    elif isinstance(event, RunStopped):
        meters["runs"].labels(*who, event.stop_reason).inc()
        for reason, rows in event.details.items():
            meters["rows"].labels(*who, reason).inc(rows)
        for signal, seconds in event.waits.items():
            meters["waits"].labels(*who, signal).inc(seconds)
        if event.success:
            meters["success"].labels(*who).set_to_current_time()


@cache
def _meters() -> dict[str, Any]:
    who = ("operation", "policy")
    return {
        "runs": Counter("housekeeping_runs", "Runs by how they ended", (*who, "stop_reason")),
        "rows": Counter("housekeeping_rows", "Committed rows", (*who, "reason")),
        "left": Counter("housekeeping_rows_left_behind", "Expired rows that stayed", who),
        "waits": Counter("housekeeping_wait_seconds", "Stopped or slowed down", (*who, "signal")),
        "window": Histogram(
            "housekeeping_window_seconds", "One transaction", who, buckets=_WINDOW_BUCKETS
        ),
        "success": Gauge(
            "housekeeping_last_success_timestamp_seconds",
            "End of the last successful run",
            who,
            multiprocess_mode="max",
        ),
    }
