"""Whatever is in the file and the environment: settings come out, or one refusal."""

import json
import traceback
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import settings
from housekeeping.policies.errors import ConfigurationRefused
from settings import shape
from settings.maintenance_config import MaintenanceConfig
from settings.milvaion import Milvaion, OccurrenceRetention
from settings.suite import Suite
from settings.tables import TablePolicy

SECRET = "h4rd-to-guess"
KEYS = [
    key.upper() if upper else key
    for section in (Suite, Milvaion, OccurrenceRetention, TablePolicy, MaintenanceConfig)
    for key in (*shape.accepted_keys(section), "OccurrenceArchive", "StatusesToArchive", "0", "")
    for upper in (False, True)
]
VALUES: list[Any] = [
    None, True, 0, -1, 1.5, 10**400, float("nan"), "", " ", "30d", "\0", "\ud800", "{", "[", "[1]",
    f"redis://:{SECRET}@cache/0", f"postgresql://me:{SECRET}@db/jobs", "redis://cache",
    f"Host=db;Password={SECRET}", f"cache,password={SECRET}", f'{{"a": "redis://:{SECRET}@c"}}',
]  # fmt: skip
TREES = st.recursive(
    st.sampled_from(VALUES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner),
    max_leaves=12,
)
NAMES = st.lists(st.sampled_from(KEYS), min_size=1, max_size=4).flatmap(
    lambda keys: st.sampled_from(["HOUSEKEEPING__", "MaintenanceConfig__"]).map(
        lambda prefix: prefix + "__".join(keys)
    )
)
TEXTS = st.sampled_from([value for value in VALUES if isinstance(value, str)])


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("settings") / "housekeeping.json"


@given(
    tree=st.dictionaries(st.sampled_from(KEYS), TREES),
    environment=st.dictionaries(NAMES, TEXTS, max_size=4),
)
def test_settings_come_out_or_one_refusal_without_a_secret(
    file: Path, tree: dict[str, Any], environment: dict[str, str]
) -> None:
    file.write_text(json.dumps(tree))
    assert SECRET not in shown(environment, file)


def shown(environment: dict[str, str], file: Path) -> str:
    try:
        suite = settings.load(environment, file)
    except ConfigurationRefused as refused:
        return "".join(traceback.format_exception(refused))
    return f"{suite!r} {suite.describe()} {suite.all_policies()!r}"
