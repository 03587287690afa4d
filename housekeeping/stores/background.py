"""Work beside a block, in a thread of its own: what goes wrong there never reaches the block."""

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import TracebackType
from typing import Self

_log = logging.getLogger("housekeeping.background")


class Background(ABC):
    """Works in a daemon thread, tick by tick, for as long as a `with` block lasts.

    An error of the work ends the work and is logged: a watch or a display is not worth a run.
    """

    def __init__(
        self, name: str, every_seconds: float, without: str, leave_within: float | None = None
    ) -> None:
        """Prepare; the thread starts with the block.

        `name`: of the thread. `without`: what nobody does any more once the work has failed, for the
        log. `leave_within`: seconds the block's end waits for work under way; None is for as long as
        it takes.
        """
        self._every_seconds = every_seconds
        self._without = without
        self._leave_within = leave_within
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name=name)

    def __enter__(self) -> Self:
        if self._wanted():
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(self._leave_within)

    @abstractmethod
    def _work(self, ticks: Iterator[None]) -> None:
        """Do something at every tick; return when there are no more, and leave nothing open."""

    def _wanted(self) -> bool:
        """Whether there is anything to do in this block."""
        return True

    def _run(self) -> None:
        try:
            self._work(self._ticks())
        except Exception as error:  # noqa: BLE001 - whatever it is, the block goes on
            _log.warning("%s: %s", self._without, error)

    def _ticks(self) -> Iterator[None]:
        while not self._ended.wait(self._every_seconds):
            yield
