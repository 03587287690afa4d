"""What a health signal is: a measurement in SQL, and a judgement of it by a policy's limits."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from psycopg2 import sql

from housekeeping.policies.health import Reading, Verdict
from housekeeping.stores.postgres.statement import raw

UNKNOWN = "unknown"
"""key of the facts of a signal that could not be measured: why not, in a sentence"""
GRANT_MONITOR = "have an administrator run: GRANT pg_monitor TO {role}"

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Seen:
    """What is known of one signal when it is judged."""

    facts: Facts
    before: Facts | None = None
    """of the sample before, for what is a rate"""
    holding: bool = False
    """whether it has stopped the run: then it lets go only at half the limit"""
    role: str = "our role"


class Signal(Protocol):
    """One thing that may slow a run down or stop it."""

    @property
    def name(self) -> str:
        """Key in results, metrics and logs."""

    @property
    def own(self) -> bool:
        """Whether the measurement is a query of the user's own."""

    @property
    def measurement(self) -> sql.Composable:
        """A scalar subquery that yields the facts as one JSON object."""

    def judge(self, seen: Seen) -> Reading:
        """Return what the facts let a run do."""

    def unknown(self, why: str) -> Reading:
        """Return what it means that the facts can't be told."""


def graded(value: float, limit: float, *, holding: bool) -> Verdict:
    """Stop above the limit, until the value is at half of it; go slowly from half of it on."""
    if value > limit or (holding and value > limit / 2):
        return Verdict.STOP
    return Verdict.SLOW if value > limit / 2 else Verdict.GO


def own_query(query: str) -> sql.Composable:
    """Return a user's query as a scalar subquery; a comment at its end ends with its line."""
    return sql.SQL("({}\n)").format(raw(query.strip().rstrip(";")))


def size_told(size: float) -> str:
    """Return bytes for people, in the units PostgreSQL uses."""
    amount, unit = float(size), "bytes"
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if abs(amount) < 1024 or unit == "TB":  # noqa: PLR2004
            break
        amount /= 1024
    return f"{amount:.0f} {unit}"
