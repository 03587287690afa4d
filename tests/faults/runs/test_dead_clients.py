"""A client that is killed takes its statement on the server along."""

import time

import pytest

from embedded.valkey import ValkeyServer
from tests.conditions import wait_until
from tests.faults.runs.conftest import Install
from tests.faults.runs.events import EXPIRED, KEPT, meant_to_survive, survivors
from tests.faults.runs.installation import Installation

ENDS_WITHIN_SECONDS = 2.0
_STUCK = """
CREATE FUNCTION get_stuck() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_sleep(60); RETURN OLD; END $$;
CREATE TRIGGER stuck BEFORE DELETE ON events FOR EACH ROW EXECUTE FUNCTION get_stuck();
"""
_INLINE = ["housekeeping", "run", "tables.purge", "--inline"]


def deleting(installation: Installation) -> bool:
    """Whether a DELETE of ours is being executed."""
    return bool(
        installation.rows(
            "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'hk:tables.purge:%'"
            " AND state = 'active' AND query LIKE '/* housekeeping.purge.delete */%'"
        )
    )


def sessions(installation: Installation) -> list[dict[str, object]]:
    return installation.rows(
        "SELECT state, query FROM pg_stat_activity WHERE application_name LIKE 'hk:%'"
    )


def test_the_statement_of_a_killed_inline_run_ends_and_leaves_no_lock(
    install: Install, valkey: ValkeyServer
) -> None:
    # The statement itself would end after its timeout of 5 s: what ends it before is its client.
    installation = install("resting", valkey)
    installation.rows(_STUCK)
    inline = installation.start(_INLINE, "inline")
    wait_until(lambda: deleting(installation), 20, otherwise=installation.told)

    inline.kill()

    killed_at = time.monotonic()
    wait_until(lambda: not sessions(installation), 4)
    assert time.monotonic() - killed_at < ENDS_WITHIN_SECONDS
    assert len(survivors(installation)) == EXPIRED + KEPT
    assert not installation.rows("SELECT pid FROM pg_locks WHERE locktype = 'advisory'")


def at_rest(installation: Installation) -> bool:
    """Whether a window of ours rests between two slices."""
    return bool(
        installation.rows(
            "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'hk:tables.purge:%'"
            " AND wait_event = 'PgSleep' AND query LIKE '/* housekeeping.purge.delete */ DO %'"
            " AND clock_timestamp() - query_start > interval '100 ms'"
        )
    )


@pytest.mark.parametrize("how", ["inline", "worker"])
def test_a_window_at_rest_ends_with_its_killed_client_and_changes_nothing(
    install: Install, valkey: ValkeyServer, how: str
) -> None:
    rests = {"duty": 0.01, "batch_target": "10s", "batch_rows": 20_000}
    settings = {f"tables__events__{name}": value for name, value in rests.items()}
    installation = install("resting", valkey, **settings)
    if how == "inline":
        client = installation.start(_INLINE, "inline")
    else:
        client = installation.worker()
        installation.send()
    wait_until(lambda: at_rest(installation), 30, otherwise=installation.told)

    client.kill()

    killed_at = time.monotonic()
    wait_until(lambda: not sessions(installation), 8)
    assert time.monotonic() - killed_at < ENDS_WITHIN_SECONDS
    assert len(survivors(installation)) == EXPIRED + KEPT
    assert not installation.windows()
    assert not installation.rows("SELECT pid FROM pg_locks WHERE locktype = 'advisory'")


def test_the_statement_of_a_killed_workers_run_ends_too(
    install: Install, valkey: ValkeyServer
) -> None:
    installation = install("resting", valkey)
    installation.rows(_STUCK)
    worker = installation.worker()
    installation.send()
    wait_until(lambda: deleting(installation), 20, otherwise=installation.told)

    worker.kill()

    killed_at = time.monotonic()
    wait_until(lambda: not sessions(installation), 4)
    assert time.monotonic() - killed_at < ENDS_WITHIN_SECONDS


def test_the_next_inline_run_goes_on_where_a_killed_one_left_and_settles_its_account(
    install: Install, valkey: ValkeyServer
) -> None:
    installation = install("slow", valkey)
    inline = installation.start(_INLINE, "inline")
    installation.wait_for_windows(3)
    inline.kill()

    def lease_is_free() -> bool:
        return installation.housekeeping("run", "tables.purge", "--inline").returncode != 3

    wait_until(lease_is_free, 30, otherwise=installation.told)

    assert survivors(installation) == meant_to_survive()
    killed, *locked, last = installation.runs()
    assert (killed["stop_reason"], killed["success"]) == ("error", False)
    assert killed["total"] + last["total"] == EXPIRED
    assert {run["stop_reason"] for run in locked} <= {"locked"}
