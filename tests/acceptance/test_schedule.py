"""What beat does with our schedule, on a real Valkey; no worker takes the messages away."""

import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from redbeat.decoder import RedBeatJSONEncoder

from embedded.valkey import ValkeyServer
from tests.conditions import stays_true, wait_until
from tests.faults.runs.installation import Installation, SuiteProcess

ROOT = Path(__file__).parents[2]
RETENTION, DEAD_LETTERS = "milvaion-occurrence-retention", "milvaion-dead-letter-cleanup"
TABLES = "tables-purge"
TASKS = {
    RETENTION: "tasks.occurrences.retention",
    DEAD_LETTERS: "tasks.dead_letters.cleanup",
    "milvaion-database-maintenance": "tasks.database.maintain",
    TABLES: "tasks.tables.purge",
}
SYSTEMS = {
    "milvaion": "{}",
    "tables__events__table": "events",
    "tables__events__age": "happened_at",
    "tables__events__keep_for": "30d",
}
NO_DATABASE = "postgresql://127.0.0.1:1/nothing"  # beat needs none


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    """All systems switched on, and nothing running but Valkey."""
    with ValkeyServer(append_only=True) as valkey:
        installation = Installation(NO_DATABASE, valkey, tmp_path, **SYSTEMS)
        try:
            yield installation
        finally:
            installation.end()


def start_beat(installation: Installation, name: str, app: str = "tasks") -> SuiteProcess:
    """Start `celery -A tasks beat`, or one of an app that stands for it."""
    command = ["celery", "-A", app, "beat", "-l", "info", f"--pidfile={name}.pid"]
    beat = installation.start(command, name, PYTHONPATH=str(ROOT))
    beat.wait_until_it_says("beat: Starting...")
    return beat


def end(beat: SuiteProcess) -> None:
    beat.send(signal.SIGTERM)
    assert beat.wait(within_seconds=15) == 0, beat.log()


def broker(installation: Installation, db: int = 0) -> "redis.Redis":
    return redis.Redis.from_url(installation.valkey.url(db), decode_responses=True)


def sent(installation: Installation) -> list[dict[str, Any]]:
    """The messages in the queue, as dictionaries."""
    with broker(installation) as client:
        return [json.loads(message) for message in client.lrange("housekeeping", 0, -1)]


def sent_by_entry(installation: Installation) -> Counter[str]:
    return Counter(message["headers"]["periodic_task_name"] for message in sent(installation))


def listed(installation: Installation) -> dict[str, dict[str, Any]]:
    """What `housekeeping schedule list --json` says, by name."""
    answer = installation.housekeeping("schedule", "list", "--json")
    assert answer.returncode == 0, answer
    return {entry["name"]: entry for entry in json.loads(answer.stdout)}


def installed(installation: Installation) -> set[str]:
    """The entries RedBeat holds in Redis."""
    with broker(installation, 2) as client:
        keys = client.zrange("housekeeping:redbeat::schedule", 0, -1)
    return {str(key).rpartition("redbeat:")[2] for key in keys}


def test_milvaions_documented_crons_are_what_beat_installs(installation: Installation) -> None:
    beat = start_beat(installation, "beat")
    wait_until(lambda: installed(installation) == set(TASKS), 10, otherwise=beat.log)

    entries = listed(installation)

    assert {name: entry["task"] for name, entry in entries.items()} == TASKS
    assert entries[RETENTION]["cron"] == "0 2 * * *"
    assert entries[DEAD_LETTERS]["cron"] == "0 4 * * 0"
    assert "T02:00:00" in entries[RETENTION]["next_due_at"]
    assert {entry["last_run_at"] for entry in entries.values()} == {None}
    header, *lines = installation.housekeeping("schedule", "list").stdout.splitlines()
    column = header.split("\t").index("last run")
    assert [line.split("\t")[column] for line in lines] == ["never"] * len(TASKS)
    assert all(entry["enabled"] and not entry["edited"] for entry in entries.values())


def test_the_next_due_time_is_right_however_long_ago_the_last_run_was(
    installation: Installation,
) -> None:
    beat = start_beat(installation, "beat")
    wait_until(lambda: installed(installation) == set(TASKS), 10, otherwise=beat.log)
    end(beat)
    now = datetime.now(UTC)
    slot = now.replace(hour=2, minute=0, second=0, microsecond=0)
    last = slot if slot <= now else slot - timedelta(days=1)
    with broker(installation, 2) as client:
        meta = json.dumps({"last_run_at": last, "total_run_count": 1}, cls=RedBeatJSONEncoder)
        client.hset(f"housekeeping:redbeat:{RETENTION}", "meta", meta)

    entry = listed(installation)[RETENTION]

    assert datetime.fromisoformat(entry["last_run_at"]) == last
    assert datetime.fromisoformat(entry["next_due_at"]) == last + timedelta(days=1)


def test_every_entry_fires_once_a_tick_with_two_beats_also_when_the_leader_dies(
    installation: Installation,
) -> None:
    first = start_beat(installation, "first", "tests.acceptance.every_second")
    first.wait_until_it_says("leading")
    second = start_beat(installation, "second", "tests.acceptance.every_second")
    wait_until(lambda: len(sent_by_entry(installation)) == len(TASKS), 10, otherwise=first.log)

    begun, before = time.monotonic(), sent_by_entry(installation)
    stays_true(lambda: True, 5)  # five ticks: the time is what is measured
    passed, both = time.monotonic() - begun, sent_by_entry(installation) - before

    assert set(both) == set(TASKS)
    assert all(passed - 1.5 <= count <= passed + 1 for count in both.values()), both
    assert "leading" not in second.log()

    first.kill()
    killed, before = time.monotonic(), sent_by_entry(installation)
    second.wait_until_it_says("leading", within_seconds=10)
    wait_until(
        lambda: (
            all(n >= 3 for n in (sent_by_entry(installation) - before).values())
            and len(sent_by_entry(installation) - before) == len(TASKS)
        ),
        15,
        otherwise=second.log,
    )
    after = sent_by_entry(installation) - before
    assert all(count <= time.monotonic() - killed + 1 for count in after.values()), after
    for message in sent(installation):
        headers = message["headers"]
        assert headers["task"] == TASKS[headers["periodic_task_name"]]
        assert headers["expires"] is not None
    ids = [message["headers"]["id"] for message in sent(installation)]
    assert len(ids) == len(set(ids))


def test_an_edited_schedule_survives_restarts_until_it_is_reset(installation: Installation) -> None:
    beat = start_beat(installation, "beat")
    wait_until(lambda: installed(installation) == set(TASKS), 10, otherwise=beat.log)

    assert installation.housekeeping("schedule", "set", RETENTION, "15 3 * * *").returncode == 0
    assert installation.housekeeping("schedule", "disable", DEAD_LETTERS).returncode == 0
    end(beat)
    beat = start_beat(installation, "again")
    beat.wait_until_it_says("leading")

    entries = listed(installation)
    assert (entries[RETENTION]["cron"], entries[RETENTION]["edited"]) == ("15 3 * * *", True)
    assert "T03:15:00" in entries[RETENTION]["next_due_at"]
    assert (entries[DEAD_LETTERS]["enabled"], entries[DEAD_LETTERS]["edited"]) == (False, True)
    assert (entries[TABLES]["cron"], entries[TABLES]["edited"]) == ("30 1 * * *", False)
    for name in (RETENTION, DEAD_LETTERS):
        assert installation.housekeeping("schedule", "reset", name).returncode == 0
    entries = listed(installation)
    assert entries[RETENTION]["cron"] == "0 2 * * *"
    assert entries[DEAD_LETTERS]["enabled"]


def test_only_systems_that_are_on_have_entries_and_others_leave_redis(
    installation: Installation,
) -> None:
    beat = start_beat(installation, "beat")
    wait_until(lambda: installed(installation) == set(TASKS), 10, otherwise=beat.log)
    end(beat)

    del installation.environment["HOUSEKEEPING__MILVAION"]
    beat = start_beat(installation, "again")

    wait_until(lambda: installed(installation) == {TABLES}, 10, otherwise=beat.log)
    assert set(listed(installation)) == {TABLES}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("set", "milvaion-occurence-retention", "0 3 * * *"), f"did you mean '{RETENTION}'?"),
        (("set", RETENTION, "0 25 * * *"), "25"),
        (("set", RETENTION, "daily"), "daily"),
        (("disable", "nothing-like-it"), "there are:"),
        (("lst",), "Did you mean 'list'?"),
    ],
)
def test_a_wrong_edit_is_exit_64_and_changes_nothing(
    installation: Installation, words: tuple[str, ...], told: str
) -> None:
    answer = installation.housekeeping("schedule", *words)

    assert answer.returncode == 64, answer
    assert told in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not any(entry["edited"] for entry in listed(installation).values())


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ('"a", "tasks.ocurrences.retention", "0 2 * * *"', "'tasks.occurrences.retention'?"),
        ('"a", "tasks.tables.purge", "0 26 * * *"', "0 26 * * *"),
    ],
    ids=["task", "cron"],
)
@pytest.mark.parametrize(
    "command",
    [
        ("celery", "-A", "tasks", "beat"),
        ("celery", "-A", "tasks", "worker", "--concurrency=1"),
        ("housekeeping", "check"),
    ],
    ids=" ".join,
)
def test_a_wrong_line_in_beat_schedule_is_refused_at_import(
    installation: Installation, tmp_path: Path, command: tuple[str, ...], entry: str, told: str
) -> None:
    (tmp_path / "beat_schedule.py").write_text(
        f"from tasks.schedule import Entry, publish\nSCHEDULE = publish(Entry({entry}))\n"
    )

    answer = installation.run(*command, PYTHONPATH=str(tmp_path))

    assert answer.returncode == 65, answer
    assert "beat_schedule.py: 'a'" in answer.stderr
    assert told in answer.stderr
    assert "Traceback" not in answer.stderr
