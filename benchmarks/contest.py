"""The contenders in turn, several rounds: a slow minute of the machine hits all of them."""

from collections.abc import Mapping
from functools import partial
from statistics import median

from benchmarks.contenders import Contender, Work, ours, raw_delete, usual_loop
from benchmarks.figures import Figure
from benchmarks.stage import Stage, Table, snapshot_held

RAW, LOOP = "one raw DELETE", "the usual loop"
HEAP, INDEX = "ours, heap walker", "ours, index walker"
# One of these takes less than a second, and the same statement varied by a third from one time to
# the next: a round has each of them several times. The loop, which takes long, comes once.
_FAST = (RAW, HEAP, INDEX)
_LAPS = 3

LEAST_OF_RAW = 0.9
LEAST_TIMES_LOOP = 20.0
LONGEST_TRANSACTION_S = 0.5

Works = Mapping[str, list[Work]]


def contest(stage: Stage, table: Table, rounds: int, loop_seconds: float) -> Works:
    """Let every contender delete from its own copy."""
    contenders = _contenders(stage, loop_seconds)
    works: dict[str, list[Work]] = {name: [] for name in contenders}
    for _ in range(rounds):
        order = [LOOP]
        for lap in range(_LAPS):  # nobody always comes after the same one
            order += _FAST[lap % len(_FAST) :] + _FAST[: lap % len(_FAST)]
        for name in order:
            with stage.copy_of(table) as copy:
                _note(works, name, contenders[name](copy))
    return works


def contest_beside_a_report(stage: Stage, table: Table, rounds: int, loop_seconds: float) -> Works:
    """Let the heap walker and the loop work while somebody's snapshot is held, as at night."""
    contenders = _contenders(stage, loop_seconds)
    works: dict[str, list[Work]] = {LOOP: [], HEAP: []}
    for name in [LOOP] + [HEAP] * rounds:
        with stage.copy_of(table) as copy, snapshot_held(copy):
            _note(works, name, contenders[name](copy))
    return works


def contest_strewn(stage: Stage, table: Table, rounds: int, loop_seconds: float) -> Works:
    """Let raw DELETE, heap walker and loop work where expired rows lie among those that stay."""
    contenders = _contenders(stage, loop_seconds)
    works: dict[str, list[Work]] = {RAW: [], LOOP: [], HEAP: []}
    for name in [LOOP] + [RAW, HEAP] * rounds * _LAPS:
        with stage.copy_of(table) as copy:
            _note(works, name, contenders[name](copy))
    return works


def figures(alone: Works, beside: Works, strewn: Works) -> list[Figure]:
    """Return what the contests say about speed and about the length of transactions."""
    raw = _rate(alone, HEAP) / _rate(alone, RAW)
    among = _rate(strewn, HEAP) / _rate(strewn, RAW)
    best = max(work.rate for work in alone[HEAP]) / max(work.rate for work in alone[RAW])
    loops = {
        "alone": _rate(alone, HEAP) / _rate(alone, LOOP),
        "strewn, no index": _rate(strewn, HEAP) / _rate(strewn, LOOP),
        "snapshot held": _rate(beside, HEAP) / _rate(beside, LOOP),
    }
    done = [*alone[HEAP], *alone[INDEX], *beside[HEAP], *strewn[HEAP]]
    longest = max(work.longest for work in done)
    return [
        Figure("heap walker / raw DELETE", f"{raw:.2f} x", ">= 0.9 x", raw >= LEAST_OF_RAW),
        Figure("heap walker / raw DELETE, best run of each", f"{best:.2f} x"),
        Figure(
            "heap walker / raw DELETE, strewn",
            f"{among:.2f} x",
            ">= 0.9 x",
            among >= LEAST_OF_RAW,
        ),
        Figure("index walker / raw DELETE", f"{_rate(alone, INDEX) / _rate(alone, RAW):.2f} x"),
        *(_times_the_loop(how, times) for how, times in loops.items()),
        Figure(
            f"longest of {sum(len(work.batches) for work in done)} transactions, both walkers",
            f"{longest * 1000:.0f} ms",
            "<= 500 ms",
            longest <= LONGEST_TRANSACTION_S,
        ),
    ]


def _times_the_loop(how: str, times: float) -> Figure:
    name = f"heap walker / usual loop, {how}"
    if how == "alone":  # its best case: nobody else there, rows in the order they expire, indexed
        return Figure(name, f"{times:.0f} x")
    return Figure(name, f"{times:.0f} x", ">= 20 x", times >= LEAST_TIMES_LOOP)


def medians(works: Works) -> str:
    """Return the contenders' median rates, one a line."""
    lines = []
    for name, done in works.items():
        inside = median(work.rows / work.deleting for work in done)
        noted = ", cut off" if any(work.cut_off for work in done) else ""
        lines.append(
            f"  {name:<18} {_rate(works, name):>10,.0f} rows/s, "
            f"{inside:>10,.0f} in the transactions that delete ({len(done)} runs{noted})"
        )
    return "\n".join(lines)


def _contenders(stage: Stage, loop_seconds: float) -> dict[str, Contender]:
    return {
        RAW: raw_delete,
        LOOP: partial(usual_loop, seconds=loop_seconds),
        HEAP: partial(ours, redis_url=stage.redis_url, walker="heap"),
        INDEX: partial(ours, redis_url=stage.redis_url, walker="index"),
    }


def _rate(works: Works, name: str) -> float:
    return median(work.rate for work in works[name])


def _note(works: Works, name: str, work: Work) -> None:
    works[name].append(work)
    cut = ", cut off: the rate of what it did" if work.cut_off else ""
    print(
        f"  {name:<18} {work.rows:>9,} rows in {work.seconds:5.2f} s: {work.rate:>9,.0f} rows/s, "
        f"{len(work.batches):>4} transactions, longest {work.longest * 1000:.0f} ms{cut}",
        flush=True,
    )
