from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import settings
from settings import Suite

Load = Callable[..., Suite]
REQUIRED = 'redis_url = "redis://cache:6379/0"\ndatabase_url = "postgresql://me@db/jobs"\n'


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load settings from the text of a file and an environment, in an empty directory."""
    monkeypatch.chdir(tmp_path)

    def read(
        text: str | None = REQUIRED,
        environment: Mapping[str, str] | None = None,
        name: str = "housekeeping.toml",
    ) -> Suite:
        if text is None:
            return settings.load(environment or {})
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return settings.load(environment or {}, path)

    return read
