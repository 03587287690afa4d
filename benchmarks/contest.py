"""The contenders in turn, several rounds: a slow minute of the machine hits all of them."""

from collections.abc import Mapping
from functools import partial
from statistics import median

from benchmarks.contenders import Contender, Work, ours, raw_delete, usual_loop
from benchmarks.figures import Figure
from benchmarks.stage import Stage, Table

RAW, LOOP = "one raw DELETE", "the usual loop"
HEAP, INDEX = "ours, heap walker", "ours, index walker"

LEAST_OF_RAW = 0.9
LEAST_TIMES_LOOP = 20.0
LONGEST_TRANSACTION_S = 0.5


def contest(stage: Stage, table: Table, rounds: int, loop_seconds: float) -> dict[str, list[Work]]:
    """Let every contender delete from its own copy, once a round."""
    contenders: dict[str, Contender] = {
        RAW: raw_delete,
        LOOP: partial(usual_loop, seconds=loop_seconds),
        HEAP: partial(ours, redis_url=stage.redis_url, walker="heap"),
        INDEX: partial(ours, redis_url=stage.redis_url, walker="index"),
    }
    works: dict[str, list[Work]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(rounds):
        for name in names:
            with stage.copy_of(table) as copy:
                works[name].append(contenders[name](copy))
            print(f"  round {number + 1}  {name:<20} {_told(works[name][-1])}", flush=True)
        names = names[1:] + names[:1]  # nobody always comes after the same one
    return works


def figures(works: Mapping[str, list[Work]]) -> list[Figure]:
    """Return what the contest says about speed and about the length of transactions."""
    longest = max(work.longest for name in (HEAP, INDEX) for work in works[name])
    heap_raw = _ratio(works, HEAP, RAW)
    heap_loop = _ratio(works, HEAP, LOOP)
    index_raw = _ratio(works, INDEX, RAW)
    share = median(work.deleting / work.seconds for work in works[HEAP])
    return [
        Figure(
            "heap walker / raw DELETE", f"{heap_raw:.2f} x", ">= 0.9 x", heap_raw >= LEAST_OF_RAW
        ),
        Figure(
            "heap walker / usual loop",
            f"{heap_loop:.0f} x",
            ">= 20 x",
            heap_loop >= LEAST_TIMES_LOOP,
        ),
        Figure("index walker / raw DELETE", f"{index_raw:.2f} x"),
        Figure("heap walker: share of its time in deleting transactions", f"{share:.0%}"),
        Figure(
            "longest transaction, both walkers",
            f"{longest * 1000:.0f} ms",
            "<= 500 ms",
            longest <= LONGEST_TRANSACTION_S,
        ),
    ]


def medians(works: Mapping[str, list[Work]]) -> str:
    """Return the contenders' median rates, one a line."""
    lines = []
    for name, done in works.items():
        rate = median(work.rate for work in done)
        inside = median(work.rows / work.deleting for work in done)
        noted = "  (cut off)" if any(work.cut_off for work in done) else ""
        lines.append(
            f"  {name:<20} {rate:>11,.0f} rows/s   {inside:>11,.0f} rows/s while deleting{noted}"
        )
    return "\n".join(lines)


def _ratio(works: Mapping[str, list[Work]], ours_: str, theirs: str) -> float:
    """Compare within each round, where the machine was in the same mood."""
    pairs = zip(works[ours_], works[theirs], strict=True)
    return median(one.rate / other.rate for one, other in pairs)


def _told(work: Work) -> str:
    cut = "  cut off, rate of the part it did" if work.cut_off else ""
    return (
        f"{work.rows:>9,} rows in {work.seconds:6.2f} s = {work.rate:>9,.0f} rows/s, "
        f"{len(work.batches)} transactions, longest {work.longest * 1000:.0f} ms{cut}"
    )
