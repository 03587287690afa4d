"""The run the other tests disturb, left alone: what they count on holds."""

import pytest

from embedded.valkey import ValkeyServer
from tests.faults.runs.conftest import Install
from tests.faults.runs.events import assert_finished_exactly_once


@pytest.mark.parametrize("template", ["resting", "slow"])
def test_a_run_takes_seconds_and_many_windows_and_gives_a_true_account(
    install: Install, valkey: ValkeyServer, template: str
) -> None:
    installation = install(template, valkey)
    installation.worker()

    result = assert_finished_exactly_once(installation, installation.send())

    assert result["batches"] > 20
    assert 2 < result["seconds"] < 30
