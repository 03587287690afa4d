"""Legal holds placed in a database: placed, listed, released; each leaves its row."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from sqlalchemy.exc import DBAPIError

from housekeeping.policies.errors import (
    ConfigurationRefused,
    HoldDelayed,
    HoldNotPlaced,
    HoldUnusable,
)
from housekeeping.policies.pace import Pace
from housekeeping.policies.policy import Policy
from housekeeping.policies.table import TableName
from housekeeping.stores.postgres.catalog import find_table
from housekeeping.stores.postgres.conditions import Condition, condition_of
from housekeeping.stores.postgres.connection import connected, guarded, place
from housekeeping.stores.postgres.counting import held_up_to
from housekeeping.stores.postgres.hold_ledger import PlacedHold, placed_holds, release
from housekeeping.stores.postgres.hold_ledger import place as place_in_ledger
from housekeeping.stores.postgres.holds import standing_hold
from housekeeping.stores.postgres.ledger_schema import ensure_ledger
from housekeeping.stores.postgres.lookup import table_called
from housekeeping.stores.postgres.names import quoted

_APPLICATION = "hk:hold"
_PATIENCE_SECONDS = 15.0  # a window's statements take 5 s at most, and wait for a lock before that
_COUNTED = 1_000_000


@dataclass(frozen=True)
class Placement:
    """A hold that is in force from now on."""

    id: int
    table: str
    """schema and name"""
    held_rows: int | None
    """held by it now; None where counting took too long"""


def place_hold(
    url: str,
    table: TableName,
    where: str,
    reason: str,
    by: str,
    patience: float = _PATIENCE_SECONDS,
) -> Placement:
    """Place a hold in the database of its table.

    Once this returns, no window of any run goes on that does not know the hold. Raises
    ConfigurationRefused where it could not be honoured, HoldDelayed where a window does not end.
    """
    if not reason.strip():
        raise ConfigurationRefused("give a reason: somebody will want to know who may release it")
    asking = Policy(operation="hold", name="hold", database_url=url)
    with connected(url, _APPLICATION) as connection:
        ensure_ledger(connection)
        with guarded(connection, Pace(), reading=True, any_plan=True):
            facts = table_called(connection, asking, table)
            try:
                hold = standing_hold(connection, asking, facts, where, reason)
            except HoldUnusable as unusable:
                fault = unusable.facts["fault"]
                raise HoldNotPlaced(table=facts.label, fault=fault) from unusable
        relation = quoted(facts.schema, facts.name)
        pace = Pace(
            lock_timeout=timedelta(seconds=patience), batch_target=timedelta(seconds=patience)
        )
        try:
            with guarded(connection, pace):
                number = place_in_ledger(connection, relation, where, reason, by)
        except DBAPIError as error:
            if condition_of(error) not in (Condition.CONTENDED, Condition.TOO_SLOW):
                raise
            raise HoldDelayed(database=place(url), seconds=patience) from error
        rows = held_up_to(connection, facts, hold.held(facts), _COUNTED)
    return Placement(number, facts.label, rows)


def holds_in(url: str, *, released: bool = False) -> Sequence[PlacedHold]:
    """Return the holds placed in a database, in the order of their numbers."""
    with (
        connected(url, _APPLICATION) as connection,
        guarded(connection, Pace(), reading=True, any_plan=True),
    ):
        return placed_holds(connection, released=released)


def has_table(url: str, table: TableName) -> bool:
    """Say whether a database has a table of that name."""
    with (
        connected(url, _APPLICATION) as connection,
        guarded(connection, Pace(), reading=True, any_plan=True),
    ):
        return find_table(connection, table) is not None


def release_hold(url: str, number: int, by: str) -> bool:
    """Release a hold; False when none is in force by that number."""
    with connected(url, _APPLICATION) as connection:
        with guarded(connection, Pace(), reading=True, any_plan=True):
            if number not in {hold.id for hold in placed_holds(connection)}:
                return False
        with guarded(connection, replace(Pace(), lock_timeout=timedelta(seconds=5))):
            return release(connection, number, by)
