"""Showing and editing the schedule that beat works from.

An edit is kept in our own hash and survives beat's restarts; the live entry is changed too, so
that a running beat follows at its next tick. An edit never causes a run by itself: what would
have been due before it counts as run.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from difflib import get_close_matches

from celery import Celery
from redbeat.schedulers import RedBeatSchedulerEntry, ensure_conf, get_redis

from housekeeping.stores.redis.schedule_edits import ScheduleEdit, ScheduleEdits
from tasks import cron_text


class ScheduleError(ValueError):
    """There is no such entry, or the schedule can't be what was asked for."""


@dataclass(frozen=True)
class ScheduledEntry:
    """One entry as beat sees it."""

    name: str
    task: str
    schedule: str
    """cron fields, or "every 30s" """
    enabled: bool
    last_run_at: datetime | None
    """None when it never ran; an edit that would have made it due at once counts as a run"""
    next_due_at: datetime | None
    """to the second; None when it is disabled, never due again, or not installed yet"""
    edited: bool


def listing(app: Celery) -> list[ScheduledEntry]:
    """Return the entries of the code in their order, then those added to RedBeat directly."""
    names = _names(app)
    edits = _edits(app).all()
    rows = []
    for name in names:
        stored = _stored(app, name)
        entry = stored or with_edit(from_code(app, name), edits.get(name))
        rows.append(_row(entry, installed=stored is not None, edited=name in edits))
    added = _added_directly(app, names)
    return rows + [_row(entry, installed=True, edited=False) for entry in added]


def set_cron(app: Celery, name: str, cron: str) -> None:
    """Have an entry run at other times.

    Raises ScheduleError when there is no such entry, or the cron can't be read.
    """
    edit = _edit(app, name)
    try:
        cron_text.parse(cron)
    except ValueError as error:
        raise ScheduleError(str(error)) from error
    _save(app, name, replace(edit, cron=" ".join(cron.split())))


def set_enabled(app: Celery, name: str, enabled: bool) -> None:  # noqa: FBT001
    """Switch an entry on or off.

    Raises ScheduleError when there is no such entry.
    """
    edit = _edit(app, name)
    as_in_code = from_code(app, name).enabled == enabled
    _save(app, name, replace(edit, enabled=None if as_in_code else enabled))


def reset(app: Celery, name: str) -> None:
    """Leave an entry to the code again.

    Raises ScheduleError when there is no such entry.
    """
    _edit(app, name)
    _save(app, name, ScheduleEdit())


def from_code(app: Celery, name: str) -> RedBeatSchedulerEntry:
    """Return an entry as the code defines it, be it as a dictionary or as an entry."""
    definition = dict(app.conf.beat_schedule[name])
    return RedBeatSchedulerEntry(**{**definition, "name": name, "app": app})


def with_edit(entry: RedBeatSchedulerEntry, edit: ScheduleEdit | None) -> RedBeatSchedulerEntry:
    """Return an entry with an operator's edit on top.

    Raises ValueError when the edit's cron can't be read.
    """
    facts = dict(entry)
    if edit is not None and edit.cron is not None:
        facts["schedule"] = cron_text.parse(edit.cron)
    if edit is not None and edit.enabled is not None:
        facts["enabled"] = edit.enabled
    return type(entry)(**facts)


def _names(app: Celery) -> list[str]:
    ensure_conf(app)
    app.loader.import_default_modules()  # one of them may set the schedule
    return list(app.conf.beat_schedule)


def _edits(app: Celery) -> ScheduleEdits:
    return ScheduleEdits(get_redis(app))


def _edit(app: Celery, name: str) -> ScheduleEdit:
    names = _names(app)
    if name not in names:
        near = get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(names))}"
        raise ScheduleError(f"there is no schedule entry {name!r}; {hint}")
    return _edits(app).all().get(name, ScheduleEdit())


def _save(app: Celery, name: str, edit: ScheduleEdit) -> None:
    _edits(app).save(name, edit)
    live = _stored(app, name)
    if live is None:  # the edit is applied when beat installs the entry
        return
    was_due = live.is_due()[0]
    wanted = with_edit(from_code(app, name), edit)
    live.schedule, live.enabled = wanted.schedule, wanted.enabled
    live.save()
    if live.is_due()[0] and not was_due:
        move_last_run(live, live.default_now())


def move_last_run(entry: RedBeatSchedulerEntry, moment: datetime) -> None:
    """Have an entry in Redis count as run at another time; how often it ran stays."""
    entry.next(last_run_at=moment, only_update_last_run_at=True)


def _stored(app: Celery, name: str) -> RedBeatSchedulerEntry | None:
    return _read(app, RedBeatSchedulerEntry.generate_key(app, name))


def _added_directly(app: Celery, names: list[str]) -> list[RedBeatSchedulerEntry]:
    ours = {RedBeatSchedulerEntry.generate_key(app, name) for name in names}
    keys = get_redis(app).zrange(app.redbeat_conf.schedule_key, 0, -1)
    entries = (_read(app, key) for key in keys if key not in ours)
    return [entry for entry in entries if entry is not None]


def _read(app: Celery, key: str) -> RedBeatSchedulerEntry | None:
    try:
        return RedBeatSchedulerEntry.from_key(key, app=app)
    except (KeyError, TypeError, ValueError):  # not there, or broken: beat sees to that
        return None


def _row(entry: RedBeatSchedulerEntry, *, installed: bool, edited: bool) -> ScheduledEntry:
    return ScheduledEntry(
        name=entry.name,
        task=entry.task,
        schedule=cron_text.describe(entry.schedule),
        enabled=bool(entry.enabled),
        # An entry that never ran counts as run when it was installed, else it would be due at once.
        last_run_at=entry.last_run_at if installed and entry.total_run_count else None,
        next_due_at=_next_due(entry) if installed and entry.enabled else None,
        edited=edited,
    )


def _next_due(entry: RedBeatSchedulerEntry) -> datetime | None:
    # Not RedBeat's `due_at`: that adds the time left from now on to the last run.
    left = timedelta(0)
    if entry.last_run_at is not None:
        left = entry.schedule.remaining_estimate(entry.last_run_at)
        if left is None:
            return None
    due: datetime = entry.default_now() + max(left, timedelta(0)) + timedelta(seconds=0.5)
    return due.replace(microsecond=0)
