"""The Procfile, the image and the lock files name the same processes and versions."""

import re
from pathlib import Path

import pytest
import yaml
from honcho.environ import parse_procfile

REPOSITORY = Path(__file__).parents[3]
LOCKS = ("requirements.lock", "requirements-runtime.lock")
EVERY_LOCK = pytest.mark.parametrize("name", LOCKS)
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*(?:\[[^\]]+\])?==[^ ;\\]+)", re.MULTILINE)
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}\b")


def read(name: str) -> str:
    return (REPOSITORY / name).read_text()


def test_the_procfile_lists_worker_beat_and_flower() -> None:
    processes = parse_procfile(read("Procfile")).processes

    assert list(processes) == ["worker", "beat", "flower"]
    for name, command in processes.items():
        assert f"celery -A tasks {name}" in command


def test_procfile_and_compose_start_the_same_worker() -> None:
    services = yaml.safe_load(read("docker-compose.yml"))["services"]
    processes = parse_procfile(read("Procfile")).processes

    assert processes["worker"].endswith(services["worker"]["command"])
    assert processes["beat"].endswith(services["beat"]["command"])


def test_a_terminated_worker_gives_its_tasks_back() -> None:
    assert "REMAP_SIGTERM=SIGQUIT" in parse_procfile(read("Procfile")).processes["worker"]
    assert "REMAP_SIGTERM=SIGQUIT" in read("Dockerfile")


@EVERY_LOCK
def test_a_lock_file_pins_by_hash_and_names_no_address(name: str) -> None:
    text = read(name)
    requirements = [entry for entry in re.split(r"\n(?=\S)", text.strip()) if entry[0] != "#"]

    assert requirements
    for requirement in requirements:
        assert PIN.match(requirement), requirement
        assert HASH.search(requirement), requirement
    assert "http" not in text


def test_the_image_installs_the_versions_that_were_tested() -> None:
    tested, installed = (set(PIN.findall(read(name))) for name in LOCKS)

    assert installed
    assert installed <= tested, "compile both lock files again, at the same time"


def test_the_image_runs_without_privileges_what_was_checked_by_hash() -> None:
    final = read("Dockerfile").rpartition("\nFROM ")[2]

    assert "\nUSER housekeeping\n" in final
    assert "--require-hashes" in read("Dockerfile")


def test_what_the_image_copies_is_let_through_and_nothing_else_is() -> None:
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.+) \S+$", read("Dockerfile"), re.MULTILINE)
        for source in line.split()
    }
    rules = [rule for rule in read(".dockerignore").splitlines() if rule and rule[0] != "#"]

    assert rules[0] == "*"
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == copied
    assert all((REPOSITORY / source).exists() for source in copied)
