"""How every operation is registered with Celery: the same limits, retries and arguments."""

from functools import partial

from housekeeping.policies.errors import ConfigurationRefused
from tasks.application import app
from tasks.configuration import MAX_RETRIES, RETRY_DELAY_SECONDS

operation_task = partial(
    app.task,
    bind=True,
    max_retries=MAX_RETRIES,
    default_retry_delay=RETRY_DELAY_SECONDS,
    throws=(ConfigurationRefused,),  # told in a line: no traceback helps against a setting
)
"""Decorator: `@operation_task(name="tasks.tables.purge")`."""
