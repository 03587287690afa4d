"""How large the next window is: its time decides, never its rows.

A window also takes time whatever it holds, above all on its way to the server and back. That is no
reason to make it smaller. Over a network of 20 ms its 14 round trips are 0.3 s: aimed at 0.25 s all the
same, windows became single rows.
"""

from housekeeping.engine.fixed_time import FixedTime

# pt-online-schema-change's weight for what was measured before.
_MEMORY = 0.75
_GROWTH = 1.5
# Until a window first takes half its target: a first run spent 16 windows on 2 M rows, now 8.
_FIRST_GROWTH = 4.0
_NEAR = 0.5
_ASSUMED_RATE = 200_000.0  # rows a second, before anything was measured: a slow disk's figure
_LEAST_ROOM = 0.5  # share of the target that is for rows, however long the way to the server takes
_MOST_TIMES = 3  # as fast as before a window may seem once fixed time is taken off: it could be all
_DENSE = 0.5  # share of a window's rows that went, from which on its time is theirs
_TELLING = 0.5  # share of the size asked for, from which on a window's time says something
_HARD_CEILING = 1_000_000


class WindowSize:
    """Aims windows at a target time; halves at once, grows slowly.

    A size counts `units`: heap blocks or index entries. `rows_per_unit` bounds what a window could
    hold if every row in it expired: after a long stretch where nothing did, a window sized by its
    time alone would be far too large for the first stretch where everything does.
    """

    def __init__(
        self, start: int, target_seconds: float, rows_per_unit: float, ceiling: int = _HARD_CEILING
    ) -> None:
        self._target = target_seconds
        self._rows_per_unit = max(rows_per_unit, 0.01)
        self._ceiling = max(1, ceiling)
        self._row_rate = _ASSUMED_RATE
        self._measured = False
        self._overhead: float | None = None
        self._fixed = FixedTime()
        self._unit_rate: float | None = None
        self._growth = _FIRST_GROWTH
        self._size = max(1, min(start, self._ceiling))

    @property
    def current(self) -> int:
        """Units the next window should hold."""
        return min(self._size, self._safe)

    @property
    def _safe(self) -> int:
        """Units that take no more than their room even if every row in them goes."""
        rows = self._room * self._row_rate
        return max(1, min(self._ceiling, int(rows / self._rows_per_unit)))

    @property
    def _room(self) -> float:
        """Seconds of a window that are for its rows."""
        fixed = (self._overhead or 0.0) + self._fixed.seconds
        return max(self._target - fixed, _LEAST_ROOM * self._target)

    def took(
        self,
        units: int,
        seconds: float,
        rows: int,
        *,
        overhead: float = 0.0,
        may_grow: bool = True,
    ) -> None:
        """Learn from a window that was done: it held `units`, took `seconds`, removed `rows`.

        `overhead`: how many of the seconds did not come from what it held, as far as it was measured.
        """
        units = max(1, units)
        told = units >= _TELLING * self.current or self._left_over(seconds, overhead) >= self._room
        if not told:
            return  # the last window of a walk, or a divided one: its time is mostly overhead
        self._overhead = _learned(self._overhead, overhead)
        self._fixed.learn(units, max(0.0, seconds - overhead))
        held = units * self._rows_per_unit
        worked = max(1e-4, self._worked(seconds, overhead, units, min(rows, held)))
        self._learn_row_rate(held, worked, rows)
        self._unit_rate = _learned(self._unit_rate, units / worked)
        if worked > _NEAR * self._room:
            self._growth = _GROWTH
        wanted = self._unit_rate * self._room
        most = self._size * self._growth + 1 if may_grow else self._size
        self._size = max(1, round(max(self._size / 2, min(wanted, most))))
        self._size = min(self._size, self._ceiling)

    def _worked(self, seconds: float, overhead: float, units: int, rows: float) -> float:
        """Return how many of a window's seconds came from what it held."""
        likely = rows / (_MOST_TIMES * self._row_rate)
        if self._unit_rate is not None:
            likely = max(likely, units / (_MOST_TIMES * self._unit_rate))
        return max(self._left_over(seconds, overhead), min(seconds, likely))

    def _left_over(self, seconds: float, overhead: float) -> float:
        """Return the seconds that nothing fixed accounts for, as far as is known by now."""
        return seconds - overhead - self._fixed.seconds

    def shrink(self) -> None:
        """Halve: a window did not fit its time, or somebody stood in its way."""
        self._size = max(1, self.current // 2)
        self._unit_rate = None
        self._growth = _GROWTH

    def _learn_row_rate(self, held: float, seconds: float, rows: int) -> None:
        """Learn how fast rows go, from windows where most of the `held` rows did.

        A window that removed few spent its time on reading: rows could go at least that fast. Taken
        for the whole truth, it made windows ever smaller: 430 rows strewn over 4 M took 6,400
        windows and 6 s where 83 windows and 0.5 s do.
        """
        rate = min(rows, held) / seconds  # rows of child tables come on top of those held
        if rows < _DENSE * held:
            self._row_rate = max(self._row_rate, rate)
        elif not self._measured:
            self._row_rate, self._measured = max(rate, 1.0), True
        else:
            self._row_rate = max(1.0, _learned(self._row_rate, rate))


def _learned(before: float | None, measured: float) -> float:
    return measured if before is None else _MEMORY * before + (1 - _MEMORY) * measured
