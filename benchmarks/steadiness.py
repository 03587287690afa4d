"""Does the last batch take longer than the first? With windows of one size, so that time tells.

The engine sizes its windows by time, so left alone their times would be equal by construction. Here
their size is held, and the table's expired half is a hundred windows long.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from unittest.mock import patch

from benchmarks.contenders import Batch, Work, ours
from benchmarks.figures import Figure
from benchmarks.stage import EXPIRED_SHARE, Stage, Table, snapshot_held
from housekeeping.engine import purging
from housekeeping.engine.sizing import WindowSize

WINDOWS = 100
MOST_SLOWDOWN = 1.2
_FULL = 0.9  # of the size; a walk's last window, and those past the cutoff, hold fewer rows


@dataclass(frozen=True)
class Deciles:
    """Median seconds of the first and of the last tenth of a run's batches."""

    first: float
    last: float

    @classmethod
    def of(cls, batches: Sequence[Batch]) -> "Deciles":
        size = median(batch.rows for batch in batches if batch.rows)
        full = [batch.seconds for batch in batches if batch.rows >= _FULL * size]
        tenth = max(1, len(full) // 10)
        return cls(median(full[:tenth]), median(full[-tenth:]))

    @property
    def ratio(self) -> float:
        return self.last / self.first

    def __str__(self) -> str:
        return f"{self.ratio:.2f} x  ({self.first * 1000:.1f} -> {self.last * 1000:.1f} ms)"


def steadiness(stage: Stage, table: Table, rounds: int) -> list[Figure]:
    """Measure both walkers, with and without a snapshot held."""
    found = []
    for walker in ("heap", "index"):
        for held in (False, True):
            measured = [_fixed(stage, table, walker, held=held) for _ in range(rounds)]
            middle = sorted(measured, key=lambda deciles: deciles.ratio)[len(measured) // 2]
            name = f"{walker} walker, last / first tenth of batches, {_beside(held=held)}"
            found.append(Figure(name, str(middle), "<= 1.2 x", middle.ratio <= MOST_SLOWDOWN))
            print(f"  {name}: {', '.join(map(str, measured))}", flush=True)
    return found


def of_the_loop(table: Table, alone: Work, beside: Work) -> list[Figure]:
    """Say how the usual loop's batches grew, for contrast."""
    found = []
    for held, work in ((False, alone), (True, beside)):
        done = work.rows / (table.rows * EXPIRED_SHARE)
        part = f", cut off at {done:.0%}" if work.cut_off else ""
        name = f"usual loop, last / first tenth of batches, {_beside(held=held)}"
        found.append(Figure(name, f"{Deciles.of(work.batches)}{part}"))
    return found


def _beside(*, held: bool) -> str:
    return "snapshot held" if held else "alone"


def _fixed(stage: Stage, table: Table, walker: str, *, held: bool) -> Deciles:
    rows = max(1, int(table.rows * EXPIRED_SHARE / WINDOWS))
    with (
        stage.copy_of(table) as copy,
        snapshot_held(copy, wanted=held),
        windows_of(rows),
    ):
        return Deciles.of(ours(copy, stage.redis_url, walker).batches)


@contextmanager
def windows_of(rows: int) -> Iterator[None]:
    """Hold the engine's windows at so many rows."""

    class Unmoved(WindowSize):
        def __init__(self, start: int, target_seconds: float, rows_per_unit: float) -> None:
            super().__init__(start, target_seconds, rows_per_unit)
            self._held = max(1, round(rows / rows_per_unit))

        @property
        def current(self) -> int:
            return self._held

    with patch.object(purging, "WindowSize", Unmoved):
        yield
