"""The Celery app. Its configuration is read when it is first needed, not at import."""

from celery import Celery
from celery.signals import worker_init, worker_process_init, worker_ready

from tasks.visibility import VisibilityHeartbeat

TASK_MODULES = ("tasks.occurrences", "tasks.dead_letters", "tasks.tables", "tasks.database")

app = Celery("housekeeping", include=[*TASK_MODULES, "tasks.shards", "beat_schedule"])
app.config_from_object("tasks.configuration:celery_settings")
app.steps["consumer"].add(VisibilityHeartbeat)


@worker_init.connect
def _prepare_metrics(**_: object) -> None:
    from tasks.metrics import prepare  # noqa: PLC0415 - keeps `tasks` light

    prepare()


@worker_ready.connect
def _serve_metrics(**_: object) -> None:
    from tasks.metrics import serve  # noqa: PLC0415

    serve()


@worker_process_init.connect
def _interruptible_statements(**_: object) -> None:
    from housekeeping.stores.postgres.interruption import install  # noqa: PLC0415

    install()
