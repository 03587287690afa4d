"""Wrong settings are refused at start: one clear message, exit 65, and no store was spoken to."""

import os
import socket
import subprocess
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

import pytest

from tests.faults.runs.installation import BINARIES, OURS, variables

WITHIN_SECONDS = 15.0  # 0.5 s alone; a store that is waited for takes longer
GOOD = {
    "tables__events__table": "events",
    "tables__events__age": "happened_at",
    "tables__events__keep_for": "30d",
}
EVENTS = "tables.events"

# What is set (None: taken away), the key's path, and what the message says of it.
WRONG: dict[str, tuple[Mapping[str, object], str, str]] = {
    "a misspelt key": ({"tables__events__keepfor": "30d"}, f"{EVENTS}.keepfor", '"keep_for"'),
    "a misspelt section": ({"milvaon": "{}"}, "milvaon", '"milvaion"'),
    "zero to keep": ({"tables__events__keep_for": 0}, f"{EVENTS}.keep_for", "above zero"),
    "less than nothing": ({"tables__events__keep_for": "-5d"}, f"{EVENTS}.keep_for", "negative"),
    "no duration": ({"tables__events__keep_for": "soon"}, f"{EVENTS}.keep_for", '"30d"'),
    "a year": ({"tables__events__keep_for": "P1Y"}, f"{EVENTS}.keep_for", '"P365D"'),
    "two centuries": ({"tables__events__keep_for": "73000d"}, f"{EVENTS}.keep_for", "36,500"),
    "empty batches": ({"tables__events__batch_rows": 0}, f"{EVENTS}.batch_rows", "1 to 1000000"),
    "negative batches": ({"tables__events__batch_rows": -5}, f"{EVENTS}.batch_rows", "-5"),
    "no time": ({"tables__events__batch_target": 0}, f"{EVENTS}.batch_target", "10ms to 10s"),
    "no work": ({"tables__events__duty": 0}, f"{EVENTS}.duty", "0.01 to 1"),
    "double shifts": ({"tables__events__duty": 2}, f"{EVENTS}.duty", "0.01 to 1"),
    "an empty budget": ({"tables__events__row_budget": 0}, f"{EVENTS}.row_budget", "1 or more"),
    "perhaps": ({"tables__events__enabled": "maybe"}, f"{EVENTS}.enabled", "true or false"),
    "no table": ({"tables__events__table": None}, f"{EVENTS}.table", "missing"),
    "no age": ({"tables__events__age": None}, f"{EVENTS}.age", "missing"),
    "no expiry": ({"tables__events__keep_for": None}, f"{EVENTS}.keep_for", "missing"),
    "two expiries": (
        {"tables__events__statuses": '{"done": "1d"}'}, f"{EVENTS}.keep_for", "keep one of the two",
    ),
    "no Redis": ({"redis_url": None}, "redis_url", "HOUSEKEEPING__REDIS_URL"),
    "no database": ({"database_url": None}, f"{EVENTS}.database_url", "missing"),
    "a web page for Redis": ({"redis_url": "http://u:s3cret@host"}, "redis_url", "redis://"),
    "another database": ({"database_url": "mysql://u:s3cret@host/x"}, "database_url", "postgresql"),
    "a lease of nothing": ({"lease_ttl": 0}, "lease_ttl", "1s to"),
    "a blink": ({"visibility_timeout": "1s"}, "visibility_timeout", "2s to"),
    "a broker in this process": ({"broker_url": "memory://"}, "broker_url", "amqps://"),
    "results in this process": ({"result_backend": "cache+memory://"}, "result_backend", "redis://"),
    "a port there is not": ({"metrics_port": 70_000}, "metrics_port", "1 to 65535"),
}  # fmt: skip


@pytest.fixture
def store() -> Iterator[socket.socket]:
    """Something that would take a connection; it stands for Redis and for PostgreSQL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


def assert_nobody_called(store: socket.socket) -> None:
    with pytest.raises(BlockingIOError):
        store.accept()


def environment(store: socket.socket, wrong: Mapping[str, object]) -> dict[str, str]:
    """Return good settings but for what is wrong."""
    host, port = store.getsockname()
    urls = {
        "redis_url": f"redis://{host}:{port}/0",
        "database_url": f"postgresql://{host}:{port}/x",
    }
    given = {k: v for k, v in {**urls, **GOOD, **wrong}.items() if v is not None}
    around = {k: v for k, v in os.environ.items() if not k.lower().startswith(OURS)}
    return {**around, **variables(**given), "PYTHONWARNINGS": "ignore"}


def run(
    words: tuple[str, ...], environment: Mapping[str, str], folder: Path
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(BINARIES / words[0]), *words[1:]],
        stdin=subprocess.DEVNULL,
        check=False,
        capture_output=True,
        text=True,
        timeout=WITHIN_SECONDS,
        cwd=folder,
        env=environment,
    )


def assert_refused(answer: "subprocess.CompletedProcess[str]", *told: str) -> None:
    assert answer.returncode == 65, answer
    assert answer.stdout == ""
    for text in told:
        assert text in answer.stderr
    assert "Traceback" not in answer.stderr
    assert "s3cret" not in answer.stderr


def test_a_run_whose_result_nobody_keeps_is_not_sent(store: socket.socket, tmp_path: Path) -> None:
    disabled = environment(store, {"result_backend": "disabled://"})

    answer = run(("housekeeping", "run", "tables.purge"), disabled, tmp_path)

    assert_refused(answer, 'result_backend = "disabled://"', "--inline")
    assert_nobody_called(store)


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_setting_is_refused_by_its_path_before_any_store_is_touched(
    store: socket.socket, tmp_path: Path, what: str
) -> None:
    wrong, path, told = WRONG[what]

    answer = run(
        ("housekeeping", "run", "tables.purge", "--inline"), environment(store, wrong), tmp_path
    )

    assert_refused(answer, told)
    (line,) = answer.stderr.splitlines()
    assert line.startswith((f"{path}:", f"{path} = "))
    assert_nobody_called(store)


def test_several_wrong_settings_are_told_at_once(store: socket.socket, tmp_path: Path) -> None:
    wrong = {"tables__events__duty": 7, "lease_ttl": "never", "queu": "x"}

    answer = run(("housekeeping", "check"), environment(store, wrong), tmp_path)

    assert_refused(answer, f"{EVENTS}.duty = ", "lease_ttl = ", 'did you mean "queue"?')
    assert len(answer.stderr.splitlines()) == 3
    assert_nobody_called(store)


@pytest.mark.parametrize(
    ("content", "told"),
    [(None, "nowhere.toml"), ("[tables.events\n", "line 1"), ("quene = 'x'\n", '"queue"')],
    ids=["no file", "broken", "misspelt"],
)
def test_a_wrong_file_is_refused_by_its_name(
    store: socket.socket, tmp_path: Path, content: str | None, told: str
) -> None:
    file = tmp_path / "nowhere.toml"
    if content is not None:
        file.write_text(content)
    given = {**environment(store, {}), "HOUSEKEEPING_CONFIG": str(file)}

    answer = run(("housekeeping", "check"), given, tmp_path)

    assert_refused(answer, told, "nowhere.toml")
    assert_nobody_called(store)


@pytest.mark.parametrize(
    "words",
    [
        ("celery", "-A", "tasks", "worker", "--concurrency=1"),
        ("celery", "-A", "tasks", "beat"),
        ("celery", "-A", "tasks", "housekeeping", "check"),
        ("housekeeping", "run", "tables.purge"),
        ("housekeeping", "history"),
        ("housekeeping", "pause"),
        ("housekeeping", "schedule", "list"),
    ],
    ids=" ".join,
)
def test_every_program_refuses_the_same_way(
    store: socket.socket, tmp_path: Path, words: tuple[str, ...]
) -> None:
    answer = run(words, environment(store, {"tables__events__duty": 2}), tmp_path)

    assert_refused(answer, f"{EVENTS}.duty = ", "0.01 to 1")
    assert_nobody_called(store)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--help",), "Usage:"),
        (("run", "--help"), "Usage:"),
        (("schedule", "--help"), "Usage:"),
        (("--version",), metadata.version("celery-housekeeping")),
    ],
)
def test_help_and_version_need_no_settings(
    tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    around = {k: v for k, v in os.environ.items() if not k.lower().startswith(OURS)}

    answer = run(("housekeeping", *words), around, tmp_path)

    assert answer.returncode == 0, answer
    assert told in answer.stdout
