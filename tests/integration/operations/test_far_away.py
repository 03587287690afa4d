"""A run on a database at the other end of a slow network."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import make_url

from housekeeping.engine.run import Surroundings
from housekeeping.policies.purge import PurgePolicy
from tests.far_away import far_away
from tests.integration.archives import archiving
from tests.integration.database import Database
from tests.integration.runs import BRISK, policy_on, run

ROWS = 20_000
# Its way there and back, fourteen times, takes longer than the target.
PACE = replace(BRISK, first_window_rows=100, batch_target=timedelta(milliseconds=100))
ONE_WAY_SECONDS = 0.005


@pytest.mark.parametrize("policy", [policy_on, archiving])
def test_windows_are_worth_their_way(
    events: Database, around: Surroundings, policy: Callable[..., PurgePolicy]
) -> None:
    events.run(
        "INSERT INTO events SELECT i, now() - interval '60 days', 'done'"
        " FROM generate_series(1, %s) i",
        ROWS,
    )
    events.run("ANALYZE events")
    url = make_url(events.url)
    assert url.port is not None

    with far_away(url.port, ONE_WAY_SECONDS) as port:
        there = replace(events, url=url.set(port=port).render_as_string(hide_password=False))
        result = run(policy(there, pace=PACE), around)

    assert (result.success, result.total) == (True, ROWS)
    assert result.batches <= 40  # as few as 7; sized by all of their time, over 120
