"""Limits and holds as users meet them: at the prompt and through the queue."""

import json
from collections.abc import Iterator

import pytest

from embedded.postgresql import PostgresServer
from embedded.valkey import ValkeyServer
from tests.faults.runs.installation import Installation, variables

EXPIRED, KEPT = 900, 100
FILL = f"""
TRUNCATE events;
INSERT INTO events SELECT i, now() - CASE WHEN i <= {EXPIRED} THEN interval '60 days'
    ELSE interval '1 day' END FROM generate_series(1, {EXPIRED + KEPT}) i;
"""


@pytest.fixture(scope="module")
def stack(
    postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """A worker whose one policy may take half of its table, and keeps the newest row."""
    database = postgres.create_database("safety")
    with ValkeyServer() as valkey:
        installation = Installation(
            database,
            valkey,
            tmp_path_factory.mktemp("safety"),
            safety__allow_share="50 %",
            tables__events__table="events",
            tables__events__age="happened_at",
            tables__events__keep_for="30d",
            holds__seeds__table="events",
            holds__seeds__where="id = 7",
            holds__seeds__reason="seed row",
        )
        installation.rows(
            "CREATE TABLE events (id bigint PRIMARY KEY, happened_at timestamptz);"
            "CREATE TABLE others (id int, at timestamptz)"
        )
        try:
            installation.worker("--concurrency=1")
            yield installation
        finally:
            installation.end()
    postgres.drop_database("safety")


@pytest.fixture
def full(stack: Installation) -> Installation:
    stack.rows(FILL)
    return stack


def left(stack: Installation) -> int:
    return int(stack.rows("SELECT count(*) FROM events")[0]["count"])


@pytest.mark.parametrize("way", [("--inline",), ()], ids=["inline", "through the queue"])
def test_a_run_over_its_limit_stops_and_a_yes_lifts_it(
    full: Installation, way: tuple[str, ...]
) -> None:
    run = ("run", "tables.purge", "--policy", "events", "--json", *way)

    stopped = full.housekeeping(*run)
    assert stopped.returncode == 2, stopped
    shape = json.loads(stopped.stdout)
    assert (shape["stop_reason"], shape["success"], shape["total_deleted"]) == ("stopped", False, 0)
    assert "allow_share = 0.5" in shape["warnings"][-1]
    assert left(full) == EXPIRED + KEPT

    confirmed = full.housekeeping(*run, "--yes")
    assert confirmed.returncode == 0, confirmed
    shape = json.loads(confirmed.stdout)
    assert shape["total_deleted"] == EXPIRED - 1
    assert shape["holds"] == ["hold seeds on public.events: seed row"]
    assert left(full) == KEPT + 1


def test_a_policy_may_allow_more_than_all_do(full: Installation) -> None:
    more = variables(tables__events__allow_share="0.95")

    answer = full.housekeeping("run", "tables.purge", "--inline", **more)

    assert answer.returncode == 0, answer


def test_the_newest_rows_stay(full: Installation) -> None:
    full.rows("CREATE INDEX IF NOT EXISTS newest ON events (happened_at, id)")
    kept = variables(tables__events__keep_newest="950", tables__events__keep_newest_per="[]")

    refused = full.housekeeping("run", "tables.purge", "--inline", **kept)
    assert (refused.returncode, "give one to 4 columns" in refused.stderr) == (65, True), refused
    kept.pop("HOUSEKEEPING__TABLES__EVENTS__KEEP_NEWEST_PER")
    answer = full.housekeeping("run", "tables.purge", "--inline", "--json", **kept)

    assert json.loads(answer.stdout)["total_deleted"] == 49, answer  # and the held one stays


def test_a_hold_is_placed_listed_and_released(full: Installation) -> None:
    words = ("--where", "id <= 10", "--reason", "case 42")

    placed = full.housekeeping("hold", "place", "events", *words)
    assert placed.returncode == 0, placed
    number = placed.stdout.split()[1]
    assert "10 rows are held now" in placed.stdout

    listed = json.loads(full.housekeeping("hold", "list", "--json").stdout)
    assert [(row["hold"], row["reason"]) for row in listed] == [
        ("seeds", "seed row"),
        (int(number), "case 42"),
    ]
    full.housekeeping("run", "tables.purge", "--yes")
    assert left(full) == KEPT + 10

    released = full.housekeeping("hold", "release", number)
    assert released.returncode == 0, released
    full.housekeeping("run", "tables.purge", "--yes")
    assert left(full) == KEPT + 1
    everything = json.loads(full.housekeeping("hold", "list", "--all", "--json").stdout)
    assert everything[1]["released"] is not None
    assert full.housekeeping("hold", "release", number).returncode == 64


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("evnts", "--where", "true", "--reason", "x"), 65, "Did you mean 'events'?"),
        (
            ("events", "--where", "idd = 1", "--reason", "x"),
            65,
            "public.events is not placed: where",
        ),
        (("events", "--where", "id = 1; DELETE FROM events", "--reason", "x"), 65, "semicolon"),
        (("events", "--where", "true", "--reason", " "), 65, "give a reason"),
        (("events", "--where", "true"), 64, "--reason"),
        (("events", "--where", "true", "--reason", "x", "--database", "y"), 64, "no database 'y'"),
    ],
    ids=["table", "expression", "statement", "blank reason", "no reason", "database"],
)
def test_a_hold_that_would_hold_nothing_is_refused(
    stack: Installation, words: tuple[str, ...], code: int, told: str
) -> None:
    answer = stack.housekeeping("hold", "place", *words)

    assert answer.returncode == code, answer
    assert told in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("way", ["its name", "its place", "its address"])
def test_hold_and_restore_take_a_database_by_name_and_by_address(
    stack: Installation, way: str
) -> None:
    address = stack.database
    place = address.rpartition("@")[2]
    database = {
        "its name": address.rpartition("/")[2],
        "its place": place,
        "its address": address,
    }[way]

    placed = stack.housekeeping(
        "hold", "place", "events", "--where", "false", "--reason", "x", "--database", database
    )
    assert placed.returncode == 0, placed
    assert place in placed.stdout
    number = placed.stdout.split()[1]
    assert stack.housekeeping("hold", "release", number, "--database", database).returncode == 0
    restored = stack.housekeeping("restore", "nothing_2024_01", "--database", database)
    assert restored.returncode == 64, restored
    assert "nothing_2024_01 can't be put back" in restored.stderr


@pytest.mark.parametrize("words", [("restore", "x"), ("hold", "release", "1")])
def test_a_database_nobody_knows_is_answered_with_those_there_are(
    stack: Installation, words: tuple[str, ...]
) -> None:
    place = stack.database.rpartition("@")[2]

    answer = stack.housekeeping(*words, "--database", "elsewhere")

    assert answer.returncode == 64, answer
    told = " ".join(answer.stderr.split())
    assert f"no database 'elsewhere'; there are: {place}" in told
    assert "or an address such as postgresql://" in told
    wrong = stack.housekeeping(*words, "--database", "mysql://me:sEcr3t@h/d")
    assert (wrong.returncode, "mysql:// is not accepted" in wrong.stderr) == (64, True), wrong
    assert "sEcr3t" not in wrong.stderr


def test_check_tells_what_looks_like_a_slip(full: Installation) -> None:
    full.rows(
        "INSERT INTO events SELECT i, now() - interval '60 days' FROM generate_series(2000, 20000) i;"
        "ANALYZE events"
    )
    slips = variables(
        tables__brief__table="others",
        tables__brief__age="at",
        tables__brief__keep_for=30,
        holds__far__table="x",
        holds__far__where="true",
        holds__far__reason="x",
        holds__far__database_url="postgresql://nobody@far.away/x",
    )

    answer = full.housekeeping("check", "--json", **slips)

    findings = json.loads(answer.stdout)["findings"]
    told = {f["subject"]: f["message"] for f in findings if f["level"] == "warning"}
    assert told["holds.far"].startswith("protects nothing"), answer
    assert told["tables.purge events"].startswith("a run would stop: public.events: "), answer
    assert "30 seconds" in told["tables.purge brief"], answer
