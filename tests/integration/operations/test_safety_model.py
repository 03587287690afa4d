"""What stays, against a model in plain Python: rules, the newest of each group, and holds together."""

from dataclasses import dataclass

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from housekeeping.engine.run import Surroundings
from housekeeping.policies.purge import KeepNewest
from tests.integration.database import Database
from tests.integration.holding import hold_on
from tests.integration.runs import per_status, policy_on, run

AGES = {"done": 30, "failed": 60}


@dataclass(frozen=True)
class Row:
    id: int
    job: str | None
    region: int | None
    status: str | None
    age: int | None
    note: str | None


rows = st.lists(
    st.builds(
        Row,
        id=st.integers(1, 1_000),
        job=st.sampled_from(["a", "b", None]),
        region=st.sampled_from([1, 2, None]),
        status=st.sampled_from(["done", "failed", "running", None]),
        age=st.sampled_from([1, 29, 31, 59, 61, 61, 90, None]),
        note=st.sampled_from(["held", "free", None]),
    ),
    max_size=40,
    unique_by=lambda row: row.id,
)
groups = st.sampled_from([(), ("job",), ("job", "region"), ("region", "job")])


def staying(table: list[Row], kept: int, per: tuple[str, ...], *, young: int) -> set[int]:
    """Return the ids of rows that no run may take."""
    by_group: dict[tuple[object, ...], list[Row]] = {}
    for row in table:
        if row.age is not None:
            by_group.setdefault(tuple(getattr(row, name) for name in per), []).append(row)
    newest = {
        row.id
        for group in by_group.values()
        for row in sorted(group, key=lambda row: (row.age, -row.id))[:kept]
    }
    return {
        row.id
        for row in table
        if row.id in newest
        or row.note == "held"
        or row.id == young
        or row.age is None
        or row.age <= AGES.get(row.status or "", 10_000)
    }


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(table=rows, kept=st.integers(1, 4), per=groups, walker=st.sampled_from(["heap", "index"]))
def test_what_stays_is_what_the_model_says(
    database: Database,
    around: Surroundings,
    table: list[Row],
    kept: int,
    per: tuple[str, ...],
    walker: str,
) -> None:
    database.run(
        "DROP TABLE IF EXISTS letters, events;"
        "CREATE TABLE events (id bigint PRIMARY KEY, job text, region int, status text,"
        " created_at timestamptz, note text);"
        "CREATE TABLE letters (event bigint REFERENCES events ON DELETE CASCADE, kept bool);"
        "CREATE INDEX ON letters (event); CREATE INDEX ON events (status, created_at);"
        "CREATE INDEX ON events (created_at); CREATE INDEX ON events (job, created_at DESC);"
        "CREATE INDEX ON events (region, job, created_at, id)"
    )
    for row in table:
        database.run(
            "INSERT INTO events VALUES (%s, %s, %s, %s, date_trunc('day', now())"
            " - %s * interval '1 day', %s)",
            row.id, row.job, row.region, row.status, row.age, row.note,
        )  # fmt: skip
    protected = table[0].id if table else 0
    database.run("INSERT INTO letters SELECT id, id = %s FROM events", protected)
    policy = policy_on(
        database,
        rules=per_status(**AGES),
        keep_newest=KeepNewest(rows=kept, per=per),
        holds=(hold_on("note = 'held'"), hold_on("kept", "letters", name="letters")),
    )

    planned = run(policy, around, dry_run=True, walker=walker)
    result = run(policy, around, walker=walker)

    expected = staying(table, kept, per, young=protected)
    assert set(database.column("SELECT id FROM events")) == expected
    assert planned.plan is not None
    assert planned.plan["would_delete"] == result.total == len(table) - len(expected)
