"""How long a window takes whatever it holds: what is left of its time at a size of nothing."""

_MEMORY = 0.9  # what a window's weight comes to with each later one
_TELLING = 0.3  # standard deviation of sizes over their mean, from which on a slope can be told


class FixedTime:
    """Draws the line of least squares through the sizes and times of the last windows.

    Where they all had about the same size it tells nothing new. Nothing fixed takes longer than the
    shortest window ever did: where a server becomes slow, smaller windows are what follows from longer
    ones, and a line through them says that size does not matter.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._shortest = float("inf")
        self._weight = self._units = self._seconds = self._squares = self._products = 0.0

    def learn(self, units: int, seconds: float) -> None:
        """Learn from a window of `units` that took `seconds`."""
        self._shortest = min(self._shortest, seconds)
        self._weight = _MEMORY * self._weight + 1
        self._units = _MEMORY * self._units + units
        self._seconds = _MEMORY * self._seconds + seconds
        self._squares = _MEMORY * self._squares + units * units
        self._products = _MEMORY * self._products + units * seconds
        mean_units, mean_seconds = self._units / self._weight, self._seconds / self._weight
        variance = self._squares / self._weight - mean_units**2
        if variance > (_TELLING * mean_units) ** 2:
            slope = (self._products / self._weight - mean_units * mean_seconds) / variance
            self.seconds = max(0.0, mean_seconds - max(0.0, slope) * mean_units)
        self.seconds = min(self.seconds, self._shortest)
