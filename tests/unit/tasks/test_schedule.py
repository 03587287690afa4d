"""What beat_schedule.py may say, and what becomes of it."""

from importlib import import_module
from pathlib import Path
from unittest.mock import patch

import pytest

import settings
from housekeeping.policies.errors import ConfigurationRefused
from tasks import schedule
from tasks.application import TASK_MODULES, app
from tasks.configuration import current_suite
from tasks.schedule import Entry, check, publish, splay_seconds

RETENTION = Entry("retention", "tasks.occurrences.retention", "0 2 * * *")
PURGE = Entry("purge", "tasks.tables.purge", "30 1 * * *")


def suite(**environment: str) -> settings.Suite:
    given = {"HOUSEKEEPING__REDIS_URL": "redis://localhost/2", **environment}
    return settings.load(given)


MILVAION = {
    "HOUSEKEEPING__MILVAION": "{}",
    "HOUSEKEEPING__DATABASE_URL": "postgresql://localhost/jobs",
}


@pytest.fixture(autouse=True)
def _an_app_without_a_schedule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOUSEKEEPING_CONFIG", raising=False)
    monkeypatch.setenv("HOUSEKEEPING__REDIS_URL", "redis://localhost/2")
    current_suite.cache_clear()
    for module in TASK_MODULES:
        import_module(module)


def published(*entries: Entry, given: settings.Suite) -> dict[str, dict[str, object]]:
    with patch.object(schedule, "current_suite", lambda: given):
        return publish(*entries)


def test_an_entry_runs_only_where_its_system_is_switched_on() -> None:
    assert list(published(RETENTION, PURGE, given=suite(**MILVAION))) == ["retention"]


def test_nothing_is_scheduled_where_nothing_is_switched_on() -> None:
    assert published(RETENTION, PURGE, given=suite()) == {}


def test_a_task_nobody_registered_is_refused_with_what_was_meant() -> None:
    wrong = Entry("retention", "tasks.occurences.retention", "0 2 * * *")

    with pytest.raises(ConfigurationRefused, match=r"did you mean 'tasks\.occurrences\.retention'"):
        published(wrong, given=suite(**MILVAION))


@pytest.mark.parametrize("cron", ["0 2 * *", "0 0 2 * * *", "61 2 * * *", "nightly", ""])
def test_a_cron_that_can_not_be_read_is_refused_with_the_entry_s_name(cron: str) -> None:
    with pytest.raises(ConfigurationRefused, match="'retention' has the cron"):
        check([Entry("retention", "tasks.occurrences.retention", cron)], app)


def test_two_entries_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigurationRefused, match="two entries are called 'retention'"):
        check([RETENTION, RETENTION], app)


def test_the_splay_is_the_same_on_every_beat_of_an_installation() -> None:
    assert splay_seconds("retention", suite()) == splay_seconds("retention", suite())


def test_the_splay_spreads_installations_over_its_whole_length() -> None:
    shifts = [
        splay_seconds("retention", suite(HOUSEKEEPING__REDIS_URL=f"redis://host-{n}/0"))
        for n in range(200)
    ]

    assert all(0 <= shift <= 60 for shift in shifts)
    assert min(shifts) < 10
    assert max(shifts) > 50


def test_no_splay_means_no_shift() -> None:
    assert splay_seconds("retention", suite(HOUSEKEEPING__SPLAY="0")) == 0
