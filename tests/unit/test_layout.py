"""The house's own rules: files that fit in a head, one concept each, no names that say nothing."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = sorted(
    path
    for folder in ("tasks", "settings", "housekeeping", "embedded", "demo", "benchmarks", "tests")
    for path in (ROOT / folder).rglob("*.py")
)
SAYS_NOTHING = {"utils", "util", "helpers", "helper", "manager", "managers", "common", "misc"}


def test_there_is_code() -> None:
    assert len(CODE) > 50


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_fits_in_a_head(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 340


def test_every_name_says_something() -> None:
    assert not [path for path in CODE if path.stem in SAYS_NOTHING]


def test_the_schedule_holds_entries_and_nothing_else() -> None:
    text = (ROOT / "beat_schedule.py").read_text()

    assert "def " not in text
    assert "class " not in text
    assert text.count("import") == 1


def test_no_line_of_a_lock_or_a_script_names_an_index() -> None:
    for name in ("requirements.lock", "requirements-runtime.lock", "Dockerfile", "Makefile"):
        text = (ROOT / name).read_text()
        assert "--index-url" not in text
        assert "--extra-index" not in text
