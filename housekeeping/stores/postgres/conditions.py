"""What a database error means for a run: wait, shrink the window, pass a row, or stop."""

from enum import Enum, auto

from sqlalchemy.exc import DBAPIError

_CONTENTION = {"55P03", "40P01", "40001"}  # lock_not_available, deadlock, serialization
_TOO_SLOW = {"57014"}  # query_canceled: our statement_timeout, or an operator's pg_cancel_backend
_HOPELESS_CLASSES = {"42", "0A", "53", "58", "XX", "F0", "25"}


class Condition(Enum):
    CONTENDED = auto()
    """somebody holds a row we want"""
    TOO_SLOW = auto()
    """the window did not fit its time"""
    CONNECTION_LOST = auto()
    """the server or the way to it went away; the transaction is rolled back, or was committed"""
    HOPELESS = auto()
    """no smaller window would help: a privilege, a syntax, a full disk"""
    REFUSED_BY_ROW = auto()
    """a constraint or a trigger refuses some row in the window"""


def sqlstate(error: DBAPIError) -> str | None:
    """Return the five letters PostgreSQL gives every error, None when the server said nothing."""
    return getattr(error.orig, "pgcode", None)


def condition_of(error: DBAPIError) -> Condition:
    """Classify an error by its SQLSTATE."""
    code = sqlstate(error)
    if code in _CONTENTION:
        return Condition.CONTENDED
    if code in _TOO_SLOW:
        return Condition.TOO_SLOW
    if error.connection_invalidated or code is None or code.startswith(("57P", "08")):
        return Condition.CONNECTION_LOST
    if code[:2] in _HOPELESS_CLASSES:
        return Condition.HOPELESS
    return Condition.REFUSED_BY_ROW


def passes(error: DBAPIError) -> bool:
    """Whether the error says nothing of the statement: asked another time, it may well be answered."""
    return condition_of(error) in (
        Condition.CONTENDED,
        Condition.TOO_SLOW,
        Condition.CONNECTION_LOST,
    )


def sentence(error: DBAPIError) -> str:
    """Return the server's own first line: names the object, holds no row data."""
    return str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else "no reason given"
