"""Waiting for something to become true: what a test does instead of sleeping."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")

_POLL = 0.02  # seconds


def wait_until(
    predicate: Callable[[], Found],
    within_seconds: float,
    otherwise: Callable[[], str] = lambda: "",
) -> Found:
    """Return what `predicate` returns as soon as that is truthy.

    Raises AssertionError when it never was, with what `otherwise` tells.
    """
    deadline = time.monotonic() + within_seconds
    while not (found := predicate()):
        if time.monotonic() > deadline:
            name = getattr(predicate, "__qualname__", repr(predicate))
            raise AssertionError(f"{name} was not true in {within_seconds} s. {otherwise()}")
        time.sleep(_POLL)
    return found


def stays_true(predicate: Callable[[], bool], for_seconds: float) -> bool:
    """Whether `predicate` is true now and all the time: for what must not happen."""
    deadline = time.monotonic() + for_seconds
    while time.monotonic() < deadline:
        if not predicate():
            return False
        time.sleep(_POLL)
    return True
