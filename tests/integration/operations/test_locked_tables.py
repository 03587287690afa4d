"""A table that stays locked ends a run, which says which table that is."""

import pytest

from housekeeping.engine import purging
from housekeeping.engine.run import Surroundings
from housekeeping.policies.result import StopReason
from tests.integration.database import Database
from tests.integration.runs import policy_on, run


@pytest.mark.parametrize("locked", ["events", "lines"])
def test_the_locked_table_is_named(
    events: Database, around: Surroundings, monkeypatch: pytest.MonkeyPatch, locked: str
) -> None:
    monkeypatch.setattr(purging, "TABLE_PATIENCE_SECONDS", 0.3)
    events.run(
        "CREATE TABLE lines (event bigint REFERENCES events ON DELETE CASCADE);"
        "CREATE INDEX ON lines (event);"
        "INSERT INTO events SELECT i, now() - interval '60 days' FROM generate_series(1, 100) i;"
        "INSERT INTO lines SELECT id FROM events"
    )
    policy = policy_on(events)
    with events.session() as user, user.cursor() as cursor:
        cursor.execute(f"LOCK TABLE {locked} IN SHARE MODE")  # as CREATE INDEX does
        result = run(policy, around)
        user.rollback()

    assert result.stop_reason is StopReason.ERROR
    assert f"public.{locked} has been locked by another session" in (result.error or "")
    assert run(policy, around).total == 100
