"""A window in slices with small rests between them, so that nobody who commits beside it waits for
much of its WAL.

A commit flushes all WAL before its own. Beside windows of 30 ms, each deleted at once, the p99 of
pgbench went from 1.0 to 4.5 ms at 85,000 rows a second and to 9 ms at 390,000.

The slices of a window are one statement, a DO block: resting on the server, it can be cancelled at any
moment, and no slice pays for the way there and back.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import attrgetter
from typing import Any

from psycopg2 import sql
from psycopg2.extensions import AsIs, encodings
from sqlalchemy import Connection

from housekeeping.stores.postgres.catalog import TableFacts
from housekeeping.stores.postgres.connection import server_version
from housekeeping.stores.postgres.deletion import Deletion
from housekeeping.stores.postgres.ranges import HeapRange, KeyRange, Range
from housekeeping.stores.postgres.statement import Statement, execute

# Pages a slice should write to: with 8 kB for each as it was and 60 bytes a row, 0.1 MB of WAL. Of its
# 0.32 ms, 0.06 go into planning and starting the statement (benchmarks/slices.py).
_PAGES = 12
# As much WAL where neighbours in the index are neighbours in the heap, far more where they are not.
_ROWS = 500
# A slice that takes so long and writes few pages is busy with other things: planning, looking things up.
_SLOW_SECONDS = 0.01
_MOST_PAGES = 48
# The server sleeps for whole milliseconds, rounded up: below half of one, the rest is for a later slice.
_LEAST_REST_SECONDS = 0.0005
# Blocks a slice reads at most where next to nothing has expired. Where that changes, one slice may write
# to all of them: 2 MB of WAL, some 10 ms.
_MOST_BLOCKS = 256

_MAY_SLICE = Statement(
    "slices.allowed",
    # The right to sleep is taken away where nobody shall tell by time what a query says.
    sql.SQL(
        "SELECT EXISTS (SELECT FROM pg_language"
        " WHERE lanname = 'plpgsql' AND has_language_privilege(oid, 'USAGE'))"
        " AND has_function_privilege('pg_catalog.pg_sleep(double precision)', 'EXECUTE')"
    ),
)
# What differs from window to window comes through settings of the transaction, so that the block's text
# does not: pg_stat_statements keeps each text of a DO apart, and 5,000 of them in all by default.
# `of_table` is there to be read: it tells in those statistics whose windows a text is.
_GIVEN = Statement(
    "slices.given",
    sql.SQL(
        "SELECT set_config('housekeeping.statement', %(slice)s, true),"
        " set_config('housekeeping.window', %(window)s, true)"
    ),
)
# From PostgreSQL 18 on a page that isn't in memory is read by another process, which each slice waits
# for: 0.48 ms for 12 pages, 0.32 where its own process reads them (benchmarks/slices.py).
_READ_BY_OURSELVES = Statement(
    "slices.read_by_ourselves", sql.SQL("SELECT set_config('effective_io_concurrency', '0', true)")
)
_READ_BY_OTHERS_SINCE = 180_000
_TOLD = Statement("slices.told", sql.SQL("SELECT current_setting('housekeeping.slices')"))
# No operator is left to look for a cast: users have casts of their own, from numbers to text for one.
_SLICES = sql.SQL(
    """
DECLARE
    of_table CONSTANT text := {table};
    statement text := current_setting('housekeeping.statement');
    given json := current_setting('housekeeping.window');
    lower_end text := given->>'lower'; upper_end text; number int := 0;
    ends text[] := ARRAY(SELECT json_array_elements_text(given->'ends'));
    block bigint := given->>'block'; end_block bigint := given->>'end_block';
    blocks bigint := given->>'blocks'; share float8 := given->>'share';
    over timestamptz := clock_timestamp() + make_interval(secs => (given->>'within')::float8);
    owed float8 := given->>'owed'; worked float8; rest float8; rested float8 := 0; moment timestamptz;
    done boolean;
    one record; told json[] := '{{}}'; removed bigint := 0; went bigint; pages bigint; seen bigint;
BEGIN
    LOOP
        rest := least(owed, extract(epoch FROM over - clock_timestamp())::float8);
        IF rest > {least_rest}::float8 THEN
            moment := clock_timestamp();
            PERFORM pg_sleep(rest);
            rest := extract(epoch FROM clock_timestamp() - moment)::float8;
            rested := rested + rest;
            owed := owed - rest;
        END IF;
        {advance}
        moment := clock_timestamp();
        {take}
        worked := extract(epoch FROM clock_timestamp() - moment)::float8;
        owed := owed + worked * share;
        {adapt}
        EXIT WHEN done;
        lower_end := upper_end;
    END LOOP;
    PERFORM set_config('housekeeping.slices', json_build_object('told', told, 'removed', removed,
        'owed', owed, 'rested', rested, 'blocks', blocks)::text, true);
END"""
)
_NEXT_BLOCKS = sql.SQL(
    """seen := least(blocks, end_block + 1 - block);
        block := block + blocks; done := block >= end_block;
        upper_end := CASE WHEN done THEN ends[1] ELSE '(' || block::text || ',0)' END;"""
)
_NEXT_KEY = sql.SQL(
    "number := number + 1; done := number = cardinality(ends); upper_end := ends[number];"
)
_TAKE = sql.SQL(
    """EXECUTE statement USING lower_end, upper_end;
        GET DIAGNOSTICS went = ROW_COUNT;
        removed := removed + went;"""
)
_TAKE_TELLING = sql.SQL(
    """went := 0;
        FOR one IN EXECUTE statement USING lower_end, upper_end LOOP
            told := told || row_to_json(one);
            went := went + one.count;
        END LOOP;"""
)
# Where windows are no larger than a slice, a last one is all there is to learn from. As long as was
# left, it says nothing for longer ones.
_ADAPT = sql.SQL(
    """pages := least(went, seen);
        IF pages > {most_pages} THEN
            blocks := greatest({pages}, seen * {pages} / pages);
        ELSIF pages > {pages} AND worked < {slow}::float8 / 4::float8 THEN
            blocks := greatest({pages}, blocks / 2);
        ELSIF NOT done
            AND (2 * pages < {pages} OR (worked > {slow}::float8 AND 2 * pages <= {most_pages})) THEN
            blocks := least(2 * blocks, {most_blocks});
        END IF;"""
).format(
    pages=sql.Literal(_PAGES),
    most_pages=sql.Literal(_MOST_PAGES),
    most_blocks=sql.Literal(_MOST_BLOCKS),
    slow=sql.Literal(_SLOW_SECONDS),
)


@dataclass(frozen=True)
class SmallRests:
    """How a transaction rests between its slices."""

    share: float
    """seconds of rest that a second of work earns"""
    within: float
    """seconds after which the transaction rests no more"""


@dataclass
class Taken:
    """What the statements of a window did."""

    told: list[tuple[Any, ...]] = field(default_factory=list)
    """the rows they returned"""
    removed: int = 0
    """rows gone by statements that return none"""
    rested: float = 0.0
    """seconds"""


class Slicing:
    """Takes windows in slices; one of them for all windows of a run."""

    def __init__(self) -> None:
        self._blocks = _PAGES
        self._allowed: bool | None = None

    def allowed(self, connection: Connection) -> bool:
        """Say whether we may run a DO block: everybody may, unless the owner has taken that away."""
        if self._allowed is None:
            self._allowed = bool(execute(connection, _MAY_SLICE).scalar_one())
        return self._allowed

    def take(
        self,
        connection: Connection,
        facts: TableFacts,
        window: Range,
        rests: SmallRests,
        deletion_of: Callable[[Range], Deletion],
    ) -> Taken:
        """Take the expired rows of a window, in the transaction that is open. Raises DBAPIError.

        `deletion_of`: returns the statements for a range.
        """
        taken, owed, end = Taken(), 0.0, time.monotonic() + rests.within
        if server_version(connection) >= _READ_BY_OTHERS_SINCE:
            execute(connection, _READ_BY_OURSELVES)
        for likes in _alike(connection, facts, window):
            begun = time.monotonic()
            left = replace(rests, within=end - begun)
            told = self._run(connection, facts, likes, left, owed, deletion_of(likes[0]))
            taken.told += [tuple(row.values()) for row in told["told"]]
            taken.removed += told["removed"]
            # The server's clock may be set meanwhile, ours can't.
            taken.rested += min(max(0.0, told["rested"]), time.monotonic() - begun)
            owed, self._blocks = told["owed"], told["blocks"]
        return taken

    def _run(
        self,
        connection: Connection,
        facts: TableFacts,
        likes: Sequence[Range],
        rests: SmallRests,
        owed: float,
        deletion: Deletion,
    ) -> dict[str, Any]:
        """Take slices whose statements differ by their ends alone; return what the block tells."""
        first, block, end_block = likes[0], 0, 0
        advance: sql.Composable = _NEXT_KEY
        adapt: sql.Composable = sql.SQL("")
        if isinstance(first, HeapRange):
            advance, adapt = _NEXT_BLOCKS, _ADAPT
            block, end_block = first.lower.block, first.upper.block
        window = {
            "lower": first.bounds()[0],
            "ends": [each.bounds()[1] for each in likes],
            "block": block,
            "end_block": end_block,
            "blocks": self._blocks,
            "within": rests.within,
            "owed": owed,
            "share": rests.share,
        }
        statement = _with_open_ends(connection, deletion)
        execute(connection, _GIVEN, slice=statement, window=json.dumps(window))
        body = _SLICES.format(
            table=sql.Literal(facts.label),
            least_rest=sql.Literal(_LEAST_REST_SECONDS),
            advance=advance,
            take=_TAKE_TELLING if deletion.tells else _TAKE,
            adapt=adapt,
        )
        execute(connection, Statement(deletion.direct().name, _do(connection, body)))
        told: dict[str, Any] = json.loads(execute(connection, _TOLD).scalar_one())
        return told


def _do(connection: Connection, body: sql.Composable) -> sql.Composable:
    driver = connection.connection.driver_connection
    assert driver is not None
    return sql.SQL("DO {}").format(sql.Literal(body.as_string(driver).replace("%", "%%")))


def _with_open_ends(connection: Connection, deletion: Deletion) -> str:
    """Return a delete's SQL with all its values in place, but for the ends of its range: $1 and $2."""
    driver = connection.connection.driver_connection
    assert driver is not None
    open_ends = {"lower": AsIs("$1"), "upper": AsIs("$2")}
    text = deletion.direct().text(connection)
    with driver.cursor() as cursor:
        sent: bytes = cursor.mogrify(text, {**deletion.values, **open_ends})
    return sent.decode(encodings[driver.encoding])


def _alike(connection: Connection, facts: TableFacts, window: Range) -> Iterator[Sequence[Range]]:
    """Yield a window's slices, together those whose statements differ by their ends alone. A heap's are
    cut on the server, by what the ones before wrote.
    """
    if isinstance(window, HeapRange):
        yield [window]
        return
    for _, likes in groupby(_keys(connection, facts, window), attrgetter("shape")):
        yield list(likes)


def _keys(connection: Connection, facts: TableFacts, window: KeyRange) -> Iterator[KeyRange]:
    """Yield slices of an index: all rows of one key are in one slice."""
    lower = window.lower
    if window.rows > _ROWS:
        numbered = sql.SQL(
            """
            SELECT hk_key::text FROM (
                SELECT {key} AS hk_key, row_number() OVER (ORDER BY {key}) AS hk_number
                FROM {table} WHERE {condition}) AS hk_numbered
            WHERE hk_number %% %(rows)s = 0 GROUP BY hk_key ORDER BY hk_key
            """
        ).format(
            key=window.key.expression, table=facts.identifier, condition=window.condition(facts)
        )
        ends = execute(connection, Statement("probe.slices", numbered), **window.values, rows=_ROWS)
        for upper in ends.scalars().all():  # as text: Python knows no date before the year 1
            if upper != window.upper:
                yield replace(window, lower=lower, upper=upper, upper_included=True, rows=_ROWS)
                lower = upper
    yield replace(window, lower=lower)
