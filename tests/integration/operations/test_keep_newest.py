"""The newest rows of each group stay, whatever their age."""

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.policies.errors import ColumnMissing, NewestUnserved, PolicyRefused
from housekeeping.policies.purge import Age, KeepNewest
from housekeeping.policies.result import RunResult, StopReason
from tests.integration.database import Database
from tests.integration.runs import (
    BRISK,
    SMALL_WINDOWS,
    AfterWindow,
    listening,
    policy_on,
    run,
    running,
)

BOTH_WALKERS = pytest.mark.parametrize("walker", ["heap", "index"])
PATIENT = BRISK.__class__(duty=1.0, lock_timeout=25 * BRISK.lock_timeout)


@pytest.fixture
def events(database: Database) -> Database:
    """Events of jobs: `age` in days."""
    database.run(
        "CREATE TABLE events (id bigint PRIMARY KEY, job text, region text, created_at timestamptz);"
        "CREATE INDEX events_created_at ON events (created_at);"
        "CREATE INDEX events_newest ON events (job, created_at)"
    )
    return database


def add(database: Database, *rows: tuple[int, str | None, int | None]) -> None:
    """Add rows of (id, job, age in days)."""
    numbers, jobs, days = zip(*rows, strict=True)
    database.run(
        "INSERT INTO events (id, job, created_at) SELECT id, job, now() - days * interval '1 day'"
        " FROM unnest(%s::bigint[], %s::text[], %s::float[]) AS given (id, job, days)",
        list(numbers),
        list(jobs),
        list(days),
    )


def left(database: Database) -> list[int]:
    return database.column("SELECT id FROM events ORDER BY id")


def keeping(
    database: Database, around: Surroundings, rows: int, *per: str, **asked: object
) -> RunResult:
    policy = policy_on(database, keep_newest=KeepNewest(rows=rows, per=per))
    return run(policy, around, **asked)


@BOTH_WALKERS
@pytest.mark.parametrize("kept", [1, 3])
def test_of_each_group_the_newest_stay_however_old(
    events: Database, around: Surroundings, walker: str, kept: int
) -> None:
    """Groups of 1, N, N + 1 and many rows, all of them expired."""
    sizes = {"one": 1, "full": kept, "over": kept + 1, "many": 50}
    rows = [(job, age) for job, size in sizes.items() for age in range(size)]
    add(events, *((number, job, 100 + age) for number, (job, age) in enumerate(rows)))
    expected = [number for number, (_, age) in enumerate(rows) if age < kept]

    first = keeping(events, around, kept, "job", walker=walker)
    again = keeping(events, around, kept, "job", walker=walker)

    assert left(events) == expected
    assert (first.total, again.total) == (len(rows) - len(expected), 0)
    assert (first.success, again.success) == (True, True)


@BOTH_WALKERS
def test_young_rows_take_the_places_of_old_ones(
    events: Database, around: Surroundings, walker: str
) -> None:
    add(events, (1, "a", 100), (2, "a", 99), (3, "a", 1), (4, "b", 100), (5, "b", 2), (6, "b", 1))

    keeping(events, around, 2, "job", walker=walker)

    assert left(events) == [2, 3, 5, 6]


@BOTH_WALKERS
def test_of_rows_of_one_age_those_with_the_highest_keys_stay(
    events: Database, around: Surroundings, walker: str
) -> None:
    events.run(
        "INSERT INTO events (id, job, created_at) SELECT i, 'a', now() - interval '60 days'"
        " FROM generate_series(1, 500) i"
    )

    result = keeping(events, around, 3, "job", walker=walker)

    assert left(events) == [498, 499, 500]
    assert result.total == 497


def test_without_a_primary_key_all_rows_as_old_as_the_last_kept_one_stay(
    events: Database, around: Surroundings
) -> None:
    events.run("ALTER TABLE events DROP CONSTRAINT events_pkey")
    add(events, (1, "a", 90), (2, "a", 60), (2, "a", 60), (2, "a", 60), (3, "a", 50))
    events.run("UPDATE events SET created_at = date_trunc('day', created_at)")

    keeping(events, around, 2, "job")

    assert left(events) == [2, 2, 2, 3]


@BOTH_WALKERS
def test_rows_without_a_group_are_a_group(
    events: Database, around: Surroundings, walker: str
) -> None:
    add(events, (1, None, 100), (2, None, 99), (3, None, 98), (4, "a", 97), (5, "a", 96))

    keeping(events, around, 1, "job", walker=walker)

    assert left(events) == [3, 5]


@BOTH_WALKERS
def test_groups_of_several_columns_tell_every_null_apart(
    events: Database, around: Surroundings, walker: str
) -> None:
    events.run("CREATE INDEX ON events (region, job, created_at)")
    number = 0
    newest = []
    for job in ("a", None):
        for region in ("x", None):
            for age in range(100, 103):
                number += 1
                events.run(
                    "INSERT INTO events VALUES (%s, %s, %s, now() - %s * interval '1 day')",
                    number, job, region, age,
                )  # fmt: skip
                newest += [number] if age == 100 else []

    result = keeping(events, around, 1, "job", "region", walker=walker)

    assert left(events) == newest
    assert result.total == 8


@BOTH_WALKERS
def test_rows_without_an_age_stay_and_take_no_place(
    events: Database, around: Surroundings, walker: str
) -> None:
    add(events, (1, "a", None), (2, "a", None), (3, "a", 100), (4, "a", 99), (5, "a", 98))

    keeping(events, around, 2, "job", walker=walker)

    assert left(events) == [1, 2, 4, 5]


@BOTH_WALKERS
def test_without_groups_the_table_is_one(
    events: Database, around: Surroundings, walker: str
) -> None:
    events.run(
        "INSERT INTO events (id, created_at) SELECT i, now() - (1000 - i) * interval '1 day'"
        " FROM generate_series(1, 900) i"
    )

    result = keeping(events, around, 100, walker=walker)

    assert left(events) == list(range(801, 901))
    assert result.total == 800


@BOTH_WALKERS
def test_an_age_that_is_an_expression_is_newest_by_that_expression(
    database: Database, around: Surroundings, walker: str
) -> None:
    """And the user may write the table's name in it, which inside means the other rows."""
    database.run(
        "CREATE TABLE events (id int PRIMARY KEY, job int, ended timestamptz, begun timestamptz);"
        "CREATE INDEX ON events (job, coalesce(ended, begun));"
        "INSERT INTO events SELECT i, i % 2, CASE WHEN i > 10 THEN now() - i * interval '1 day' END,"
        " now() - (200 - i) * interval '1 day' FROM generate_series(1, 100) i"
    )
    policy = policy_on(
        database,
        age=Age(expression="coalesce(events.ended, begun)"),
        keep_newest=KeepNewest(rows=40, per=("job",)),
    )

    run(policy, around, walker=walker)

    # Of each parity the 45 that ended are newer than the 5 that did not.
    assert database.column("SELECT id FROM events ORDER BY id") == list(range(11, 91))


def test_a_dry_run_counts_what_a_run_takes(events: Database, around: Surroundings) -> None:
    for job in ("a", "b"):
        add(events, *((ord(job) * 100 + age, job, age) for age in range(20, 60)))

    planned = keeping(events, around, 15, "job", dry_run=True)
    done = keeping(events, around, 15, "job")

    assert planned.plan is not None
    assert planned.plan["would_delete"] == done.total == 50
    assert "EXISTS" in planned.plan["statement"]


def test_a_group_no_index_leads_with_is_refused_with_the_index_to_build(
    events: Database, around: Surroundings
) -> None:
    events.run("DROP INDEX events_newest; CREATE INDEX ON events (job)")

    with pytest.raises(NewestUnserved) as refused:
        keeping(events, around, 5, "job")

    line = refused.value.message.splitlines()[-1].strip()
    assert line.startswith("CREATE INDEX CONCURRENTLY")
    events.run(line)
    assert keeping(events, around, 5, "job").stop_reason is StopReason.EXHAUSTED


def test_an_index_without_the_rows_that_have_no_group_is_refused(
    events: Database, around: Surroundings
) -> None:
    events.run(
        "DROP INDEX events_newest;CREATE INDEX ON events (job, created_at) WHERE job IS NOT NULL"
    )

    with pytest.raises(NewestUnserved):
        keeping(events, around, 5, "job")
    events.run("ALTER TABLE events ALTER job SET NOT NULL")

    assert keeping(events, around, 5, "job").success


def test_the_index_offered_for_an_expression_is_one_that_serves(
    database: Database, around: Surroundings
) -> None:
    database.run(
        'CREATE TABLE "Jobs" ("Id" uuid PRIMARY KEY, "Job % Id" int, "EndTime" timestamptz,'
        ' "CreatedAt" timestamptz)'
    )
    policy = policy_on(
        database,
        "Jobs",
        age=Age(columns=("EndTime", "CreatedAt"), never_before="CreatedAt"),
        keep_newest=KeepNewest(rows=5, per=("Job % Id",)),
    )

    with pytest.raises(NewestUnserved) as refused:
        run(policy, around)
    database.run(refused.value.message.splitlines()[-1].strip())

    assert run(policy, around).success


def test_a_group_that_is_no_column_or_can_not_be_compared_is_refused(
    events: Database, around: Surroundings
) -> None:
    events.run("ALTER TABLE events ADD payload json")

    with pytest.raises(ColumnMissing, match="Did you mean 'job'"):
        keeping(events, around, 5, "jobb")
    with pytest.raises(PolicyRefused, match="can't group"):
        keeping(events, around, 5, "payload")


@BOTH_WALKERS
def test_a_newer_row_somebody_has_not_committed_takes_no_place(
    events: Database, around: Surroundings, walker: str
) -> None:
    add(events, (1, "a", 60))
    with events.session() as user, user.cursor() as cursor:
        cursor.execute("INSERT INTO events VALUES (2, 'a', NULL, now())")
        during = keeping(events, around, 1, "job", walker=walker)
        user.rollback()

    assert (during.total, left(events)) == (0, [1])


@BOTH_WALKERS
@pytest.mark.parametrize(
    ("change", "stays"),
    [
        ("DELETE FROM events WHERE id IN (2, 3)", [1]),
        ("UPDATE events SET job = 'b' WHERE id = 3", [2, 3]),
        ("UPDATE events SET created_at = now() - interval '70 days' WHERE id = 3", [2]),
        ("UPDATE events SET created_at = now() WHERE id = 1", [1]),
        ("UPDATE events SET job = 'b' WHERE id = 1", [1, 3]),
    ],
    ids=["newer ones go", "newest moves", "newest ages", "oldest renewed", "oldest moves"],
)
def test_what_a_user_changes_while_we_wait_for_him_is_seen(
    events: Database, around: Surroundings, walker: str, change: str, stays: list[int]
) -> None:
    """He holds the row we want first; our second look has seen what he committed."""
    add(events, (1, "a", 60), (2, "a", 50), (3, "a", 40))
    policy = policy_on(events, keep_newest=KeepNewest(rows=1, per=("job",)), pace=PATIENT)
    with events.session() as user, user.cursor() as cursor:
        cursor.execute("SELECT FROM events WHERE id = 1 FOR UPDATE")
        with running(policy, around, walker=walker) as ours:
            events.wait_until_we_wait_for_a_lock()
            cursor.execute(change)
            user.commit()
            result = ours.result(30)

    # A row that was among the newest before his change goes with the next run at the latest.
    assert set(left(events)) >= set(stays)
    assert (result.stop_reason, result.left_behind) == (StopReason.EXHAUSTED, 0)
    run(policy, around, walker=walker)
    assert left(events) == stays


@BOTH_WALKERS
def test_the_newest_that_go_between_windows_leave_their_places_to_the_next(
    events: Database, around: Surroundings, walker: str
) -> None:
    events.run(
        "INSERT INTO events (id, job, created_at)"
        " SELECT i, 'a', now() - (10000 - i) * interval '1 hour' FROM generate_series(1, 1000) i"
    )
    policy = policy_on(events, keep_newest=KeepNewest(rows=10, per=("job",)), pace=SMALL_WINDOWS)
    gone = AfterWindow(lambda: events.run("DELETE FROM events WHERE id > 900"), 2)

    result = run(policy, listening(around, gone), walker=walker)

    assert left(events) == list(range(891, 901))
    assert result.success
