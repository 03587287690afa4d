"""How much of a transaction's time is the way to the server and what passes between its statements."""

import time

from sqlalchemy import Connection, event

_KEY = "housekeeping.overhead"


class Overhead:
    """Times a connection's statements, and takes the quickest for the mere way to the server and back.

    What passes between statements, composing them for one, is overhead too.
    """

    def __init__(self, connection: Connection) -> None:
        self.begin()
        event.listen(connection, "before_cursor_execute", self._sent)
        event.listen(connection, "after_cursor_execute", self._answered)

    @classmethod
    def on(cls, connection: Connection) -> "Overhead":
        """Return the one that times this connection: a run has a window store for each leaf.

        It hears this object only, so a pool that hands out the same session again would need another.
        """
        if _KEY not in connection.info:
            connection.info[_KEY] = cls(connection)
        timing: Overhead = connection.info[_KEY]
        return timing

    def begin(self) -> None:
        """Forget all statements so far."""
        self._statements = 0
        self._sent_at = self._answering = 0.0
        self._quickest = float("inf")

    def of(self, seconds: float) -> float:
        """Return how much was overhead of the seconds since `begin`, COMMIT's way included."""
        if not self._statements:
            return 0.0
        # BEGIN goes to the server in the first statement's time, COMMIT after the last one's.
        ways = (self._statements + 2) * self._quickest
        return min(seconds, max(0.0, seconds - self._answering) + ways)

    def _sent(self, *_: object) -> None:
        self._sent_at = time.perf_counter()

    def _answered(self, *_: object) -> None:
        took = time.perf_counter() - self._sent_at
        self._statements += 1
        self._answering += took
        self._quickest = min(self._quickest, took)
