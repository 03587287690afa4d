"""A table of events of which most have expired, and the account a purge of it has to give."""

from typing import Any

from tests.faults.runs.installation import Installation

EXPIRED, KEPT = 60_000, 6_000
_KEPT_EVERY = (EXPIRED + KEPT) // KEPT

# Policies that walk 60,000 rows for several seconds, in many windows, on whatever machine: deleting
# takes a time of its own (`taking_time`), of which the rests are a multiple. Of windows aimed at 10 ms
# one machine took 2 ms each and another 9.
RESTING = {
    "tables__events__table": "events",
    "tables__events__age": "happened_at",
    "tables__events__keep_for": "30d",
    "tables__events__batch_target": "50ms",
    "tables__events__batch_rows": 100,
    "tables__events__duty": 0.3,
}
# No rests: nearly all the time inside a DELETE.
WORKING = {**RESTING, "tables__events__duty": 1}

FILL = f"""
CREATE TABLE events (id bigint PRIMARY KEY, happened_at timestamptz NOT NULL, payload text);
INSERT INTO events
SELECT i, now() - CASE WHEN i % {_KEPT_EVERY} = 0 THEN interval '1 day' ELSE interval '60 days' END
          - i * interval '1 second' / {EXPIRED}, repeat('x', 40)
FROM generate_series(1, {EXPIRED + KEPT}) i;
"""
INDEX = "CREATE INDEX events_age ON events (happened_at)"


def taking_time(every: int) -> str:
    """Return what makes every so many rows take a millisecond, the shortest PostgreSQL sleeps."""
    return f"""
    CREATE FUNCTION take_your_time() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN
        IF OLD.id % {every} = 0 THEN PERFORM pg_sleep(0.001); END IF;
        RETURN OLD;
    END $$;
    CREATE TRIGGER slow BEFORE DELETE ON events FOR EACH ROW EXECUTE FUNCTION take_your_time();
    """


def survivors(installation: Installation) -> set[int]:
    """Which events are left."""
    return {row["id"] for row in installation.rows("SELECT id FROM events")}


def meant_to_survive() -> set[int]:
    return set(range(_KEPT_EVERY, EXPIRED + KEPT + 1, _KEPT_EVERY))


def assert_finished_exactly_once(
    installation: Installation, task_id: str, *, at_least_attempts: int = 1
) -> dict[str, Any]:
    """The one run of a task has ended, and its account is what really went."""
    answer = installation.outcome(task_id)
    assert answer.state == "SUCCESS", f"{answer.state}: {answer.result!r}\n{installation.told()}"
    result: dict[str, Any] = answer.result
    (run,) = installation.runs()
    assert run["task_id"] == task_id
    assert run["ended_at"] is not None, installation.told()
    assert (run["stop_reason"], run["success"]) == ("exhausted", True), run
    assert run["attempts"] >= at_least_attempts, run
    assert survivors(installation) == meant_to_survive()
    assert result["success"]
    assert result["total_deleted"] == result["details"]["expired"] == run["total"] == EXPIRED
    assert_windows_add_up(installation)
    return result


def assert_windows_add_up(installation: Installation) -> None:
    """Every run's total is the sum over its windows, and all of them what is gone."""
    windows = installation.windows()
    gone = EXPIRED + KEPT - len(survivors(installation))
    assert sum(window["rows"] for window in windows) == gone
    for run in installation.runs():
        own = [window for window in windows if window["run_id"] == run["id"]]
        assert run["total"] == sum(window["rows"] for window in own), run
        assert run["batches"] == len(own), run
    assert meant_to_survive() <= survivors(installation)
