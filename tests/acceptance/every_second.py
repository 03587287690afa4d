"""Our app with every entry of its schedule due each second: `celery -A tests.acceptance.every_second`.

Names, tasks and options stay what beat_schedule.py says; only the times are replaced.
"""

from datetime import timedelta

from celery.schedules import schedule

from tasks.application import app

app.loader.import_default_modules()
for entry in app.conf.beat_schedule.values():
    entry["schedule"] = schedule(timedelta(seconds=1), app=app)
# So that a standby takes over within the length of a test.
app.conf.redbeat_lock_timeout = 3
app.conf.beat_max_loop_interval = 0.5
