"""Showing and editing a schedule in a real Redis, without a beat; tests/faults has one running."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from celery import Celery
from celery.schedules import crontab
from redbeat.schedulers import RedBeatSchedulerEntry, ensure_conf, get_redis

from embedded.valkey import ValkeyServer
from housekeeping.stores.redis.schedule_edits import ScheduleEdit, ScheduleEdits
from tasks import schedule_editing
from tasks.schedule_editing import ScheduledEntry, ScheduleError
from tasks.scheduler import ResilientScheduler

_YESTERDAY = datetime.now(UTC) - timedelta(days=1)


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.fixture
def app(server: ValkeyServer) -> Iterator[Celery]:
    app = Celery("editing", broker="memory://", set_as_current=False)
    app.conf.redbeat_redis_url = server.url()
    app.conf.result_expires = None  # else Celery adds an entry of its own
    app.conf.redbeat_redis_options = {"socket_timeout": 5}
    app.conf.beat_schedule = {
        "nightly-purge": {"task": "purge", "schedule": crontab.from_string("30 1 * * 1-5")},
        "heartbeat": {"task": "beat", "schedule": timedelta(seconds=30)},
        "off": {"task": "purge", "schedule": crontab.from_string("0 4 * * 0"), "enabled": False},
    }
    ensure_conf(app)
    get_redis(app).flushdb()
    yield app
    get_redis(app).close()


@pytest.fixture
def installed(app: Celery) -> Celery:
    """The app after one tick of a beat."""
    tick(app)
    return app


def tick(app: Celery) -> None:
    """Have a beat start, send what is due, and end."""
    scheduler = ResilientScheduler(app)
    scheduler.tick()
    scheduler.close()


def row(app: Celery, name: str) -> ScheduledEntry:
    return {entry.name: entry for entry in schedule_editing.listing(app)}[name]


def live(app: Celery, name: str) -> RedBeatSchedulerEntry:
    return RedBeatSchedulerEntry.from_key(f"redbeat:{name}", app=app)


def edits(app: Celery) -> dict[str, ScheduleEdit]:
    return ScheduleEdits(get_redis(app)).all()


def test_the_listing_shows_what_beat_works_from(installed: Celery) -> None:
    rows = schedule_editing.listing(installed)

    assert [(row.name, row.task, row.schedule, row.enabled, row.edited) for row in rows] == [
        ("nightly-purge", "purge", "30 1 * * 1-5", True, False),
        ("heartbeat", "beat", "every 30s", True, False),
        ("off", "purge", "0 4 * * 0", False, False),
    ]
    nightly, heartbeat, off = rows
    assert heartbeat.next_due_at is not None
    begun = live(installed, "heartbeat").last_run_at
    late = heartbeat.next_due_at - begun - timedelta(seconds=30)
    assert abs(late) < timedelta(seconds=1)
    assert nightly.next_due_at is not None
    assert (nightly.next_due_at.hour, nightly.next_due_at.minute) == (1, 30)
    assert off.next_due_at is None


def test_an_entry_has_a_last_run_once_it_ran_and_no_edit_takes_it_away(installed: Celery) -> None:
    assert [row.last_run_at for row in schedule_editing.listing(installed)] == [None] * 3
    live(installed, "heartbeat").reschedule(_YESTERDAY)
    assert row(installed, "heartbeat").last_run_at is None

    tick(installed)

    ran = row(installed, "heartbeat").last_run_at
    assert ran is not None
    assert ran > _YESTERDAY + timedelta(hours=1)
    live(installed, "heartbeat").next(last_run_at=_YESTERDAY, only_update_last_run_at=True)
    schedule_editing.set_enabled(installed, "heartbeat", enabled=False)
    schedule_editing.set_enabled(installed, "heartbeat", enabled=True)
    assert row(installed, "heartbeat").last_run_at is not None
    assert row(installed, "nightly-purge").last_run_at is None


def test_before_a_beat_has_run_the_listing_shows_the_code_and_the_edits(app: Celery) -> None:
    schedule_editing.set_cron(app, "nightly-purge", "15 2 * * *")

    assert row(app, "nightly-purge") == ScheduledEntry(
        name="nightly-purge",
        task="purge",
        schedule="15 2 * * *",
        enabled=True,
        last_run_at=None,
        next_due_at=None,
        edited=True,
    )


def test_the_listing_shows_entries_added_to_redbeat_and_passes_over_broken_ones(
    installed: Celery,
) -> None:
    RedBeatSchedulerEntry("added", "purge", crontab.from_string("1 1 1 1 *"), app=installed).save()
    get_redis(installed).hset("redbeat:heartbeat", "definition", "{")

    assert row(installed, "added").schedule == "1 1 1 1 *"
    assert row(installed, "heartbeat").last_run_at is None


def test_a_new_cron_is_kept_and_reaches_the_live_entry(installed: Celery) -> None:
    schedule_editing.set_cron(installed, "nightly-purge", " 15  2 * * * ")

    assert edits(installed) == {"nightly-purge": ScheduleEdit(cron="15 2 * * *")}
    assert live(installed, "nightly-purge").schedule == crontab.from_string("15 2 * * *")
    assert row(installed, "nightly-purge").edited


def test_edits_of_one_entry_add_up_and_a_reset_takes_all_back(installed: Celery) -> None:
    schedule_editing.set_cron(installed, "nightly-purge", "15 2 * * *")
    schedule_editing.set_enabled(installed, "nightly-purge", enabled=False)
    assert edits(installed) == {"nightly-purge": ScheduleEdit("15 2 * * *", enabled=False)}
    assert not live(installed, "nightly-purge").enabled

    schedule_editing.reset(installed, "nightly-purge")

    assert edits(installed) == {}
    assert live(installed, "nightly-purge").enabled
    assert row(installed, "nightly-purge").schedule == "30 1 * * 1-5"


def test_switching_back_to_what_the_code_says_is_no_edit(installed: Celery) -> None:
    schedule_editing.set_enabled(installed, "off", enabled=True)
    assert edits(installed) == {"off": ScheduleEdit(enabled=True)}

    schedule_editing.set_enabled(installed, "off", enabled=False)
    assert edits(installed) == {}


def test_an_edit_causes_no_run_of_its_own(installed: Celery) -> None:
    live(installed, "off").reschedule(_YESTERDAY - timedelta(days=30))
    schedule_editing.set_enabled(installed, "off", enabled=True)
    assert not live(installed, "off").is_due()[0]

    live(installed, "nightly-purge").reschedule(_YESTERDAY)
    schedule_editing.set_enabled(installed, "nightly-purge", enabled=False)
    schedule_editing.set_cron(installed, "nightly-purge", "* * * * *")
    schedule_editing.set_enabled(installed, "nightly-purge", enabled=True)
    assert not live(installed, "nightly-purge").is_due()[0]


def test_an_edit_leaves_a_run_that_was_due_before_it_alone(installed: Celery) -> None:
    live(installed, "heartbeat").reschedule(_YESTERDAY)

    schedule_editing.set_cron(installed, "heartbeat", "* * * * *")

    assert live(installed, "heartbeat").last_run_at == _YESTERDAY


def test_the_next_beat_installs_the_edits_and_an_unreadable_one_is_passed_over(
    app: Celery, caplog: pytest.LogCaptureFixture
) -> None:
    schedule_editing.set_cron(app, "nightly-purge", "15 2 * * *")
    ScheduleEdits(get_redis(app)).save("heartbeat", ScheduleEdit(cron="rarely"))

    tick(app)

    assert row(app, "nightly-purge").schedule == "15 2 * * *"
    assert row(app, "heartbeat").schedule == "every 30s"
    assert "'rarely'" in caplog.text


def test_an_unknown_name_is_refused_with_the_one_that_was_meant(app: Celery) -> None:
    meant = "did you mean 'nightly-purge'"
    with pytest.raises(ScheduleError, match=meant):
        schedule_editing.set_cron(app, "nightly-pruge", "15 2 * * *")
    with pytest.raises(ScheduleError, match=meant):
        schedule_editing.set_enabled(app, "nightly-pruge", enabled=False)
    with pytest.raises(ScheduleError, match=meant):
        schedule_editing.reset(app, "nightly-pruge")


def test_a_name_like_no_other_is_refused_with_the_names_there_are(app: Celery) -> None:
    with pytest.raises(ScheduleError, match="heartbeat, nightly-purge, off"):
        schedule_editing.reset(app, "x")


@pytest.mark.parametrize(
    ("cron", "complaint"),
    [
        ("15 2 * *", "it has 4 fields"),
        ("@daily", "it has 1 fields"),
        ("60 2 * * *", "'60' as minute"),
        ("0 24 * * *", "'24' as hour"),
        ("0 0 0 * *", "'0' as day of the month"),
        ("0 0 30 2 *", "30"),
        ("0 0 * 13 *", "'13' as month"),
        ("0 0 * * 7", "'7' as day of the week"),
        ("0 mon * * *", "'mon' as hour"),
        ("1-5-7 * * * *", "'1-5-7' as minute"),
        ("*/0 * * * *", "'\\*/0' as minute"),
        ("5/15 * * * *", "'5/15' as minute"),
        ("1,,2 * * * *", "'1,,2' as minute"),
        ("0 0 * foo *", "'foo' as month"),
        ("", "it has 0 fields"),
    ],
)
def test_a_cron_that_cannot_be_read_is_refused_with_what_is_accepted(
    installed: Celery, cron: str, complaint: str
) -> None:
    with pytest.raises(ScheduleError, match=complaint) as refused:
        schedule_editing.set_cron(installed, "nightly-purge", cron)

    assert "Five fields are accepted: minute (0-59)" in str(refused.value)
    assert ".." not in str(refused.value)
    assert edits(installed) == {}


@pytest.mark.parametrize(
    ("every", "text"),
    [
        (timedelta(days=2), "every 2d"),
        (timedelta(hours=36), "every 36h"),
        (timedelta(minutes=5), "every 5m"),
        (timedelta(seconds=90), "every 90s"),
        (0.5, "every 0.5s"),
    ],
)
def test_an_interval_is_shown_in_its_largest_unit(
    app: Celery, every: timedelta | float, text: str
) -> None:
    app.conf.beat_schedule = {"heartbeat": {"task": "beat", "schedule": every}}

    assert row(app, "heartbeat").schedule == text


@pytest.mark.parametrize(
    "cron", ["* * * * *", "*/15 8-18/2 1,15 jan-mar mon", "5 22-2 * * sun,sat", "0 0 29 2 *"]
)
def test_what_cron_offers_is_accepted_and_shown_as_it_was_written(
    installed: Celery, cron: str
) -> None:
    schedule_editing.set_cron(installed, "nightly-purge", cron)

    assert row(installed, "nightly-purge").schedule == cron
