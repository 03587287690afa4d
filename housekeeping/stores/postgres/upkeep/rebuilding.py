"""REINDEX CONCURRENTLY of one index, and the removal of what it leaves when it is cut short."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID

from psycopg2 import sql
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from housekeeping.policies.errors import HousekeepingError
from housekeeping.policies.pace import Pace
from housekeeping.stores.postgres.conditions import Condition, condition_of, sentence
from housekeeping.stores.postgres.connection import connected, guarded
from housekeeping.stores.postgres.statement import Statement, execute
from housekeeping.stores.postgres.upkeep import leftovers, rebuilds
from housekeeping.stores.postgres.upkeep.indexes import IndexState
from housekeeping.stores.postgres.upkeep.leftovers import (
    SEEN_TWICE_AFTER,
    InvalidIndex,
    drop_patience,
    invalid_indexes,
    left_by,
)
from housekeeping.stores.postgres.upkeep.rebuilds import Intent
from housekeeping.stores.postgres.upkeep.stepping import Ending, StepOutcome, Stepping

_log = logging.getLogger("housekeeping.maintenance")
_PACE = Pace(lock_timeout=timedelta(seconds=2))
# A build reads the table and writes the index; at less than this the disk is the problem.
_SLOWEST_BYTES_PER_SECOND = 1024 * 1024
_SHORTEST_TIMEOUT = timedelta(minutes=15)
# A cancelled REINDEX lets its locks go within a second; a reader of the table may take longer.
_DROP_TRIES = 25
_BETWEEN_DROPS_SECONDS = 0.25

_ANYBODY_BUILDS = Statement(
    "rebuild.anybody_builds",
    sql.SQL(
        """
        SELECT format('session %%s builds an index', pid) FROM pg_stat_progress_create_index
        WHERE datname = current_database() LIMIT 1
        """
    ),
)


def anybody_builds(connection: Connection) -> str | None:
    """Say who builds an index in this database: two builds wait for each other's snapshots."""
    with guarded(connection, _PACE, reading=True, any_plan=True):
        found: str | None = execute(connection, _ANYBODY_BUILDS).scalar()
    return found


def build_timeout(index: IndexState) -> timedelta:
    """Return after how long a rebuild is no longer slow but broken."""
    expected = timedelta(seconds=index.bytes / _SLOWEST_BYTES_PER_SECOND)
    return max(_SHORTEST_TIMEOUT, 4 * expected)


@dataclass(frozen=True)
class Rebuilder:
    """Rebuilds indexes one after the other, each with its intent in the ledger."""

    stepping: Stepping
    connection: Connection
    """for looking and for the ledger"""
    run_id: UUID
    sleep: Callable[[float], None]

    def rebuild(self, index: IndexState) -> StepOutcome:
        """Rebuild one index. However it ends, nothing of ours stays, or the ledger knows it.

        Raises what interrupted it, after it has cleaned up.
        """
        intent = self._begin(index)
        outcome = StepOutcome(Ending.FAILED, "interrupted")
        try:
            body = sql.SQL("REINDEX INDEX CONCURRENTLY {}").format(index.identifier)
            watching = replace(
                self.stepping,
                # A lock_timeout would also abort its waits for others and leave its half-built copy.
                lock_timeout=timedelta(0),
                statement_timeout=build_timeout(index),
                look=_ArtefactNote(intent),
            )
            outcome = watching.run(Statement("upkeep.reindex", body))
        finally:
            outcome = self._conclude(intent, outcome)
        return outcome

    def _begin(self, index: IndexState) -> Intent:
        with guarded(self.connection, _PACE, any_plan=True):
            known = [each.oid for each in invalid_indexes(self.connection, [index.table_oid])]
            return rebuilds.begin(self.connection, self.run_id, index, known)

    def _conclude(self, intent: Intent, outcome: StepOutcome) -> StepOutcome:
        """Remove what a rebuild left, on a new connection: ours may be what was interrupted."""
        done = outcome.ending is Ending.DONE
        told = "rebuilt" if done else outcome.told or outcome.ending.value
        try:
            with connected(self.stepping.url, self.stepping.application) as connection:
                left = () if done else self._remove(connection, intent)
                if not left:
                    with guarded(connection, _PACE, any_plan=True):
                        rebuilds.end(connection, intent, told, done=done)
                    return outcome
        except (SQLAlchemyError, HousekeepingError) as error:
            _log.warning(
                "what the rebuild of %s left is for the next run: %s", intent.index_name, error
            )
            return outcome
        stays = f"{told}; {left[0].label} is left and goes with the next run: {left[0].drop}"
        return replace(outcome, told=stays)

    def _remove(self, connection: Connection, intent: Intent) -> tuple[InvalidIndex, ...]:
        """Drop what a rebuild that has just ended left; return what is still there."""
        left: tuple[InvalidIndex, ...] = ()
        for _ in range(_DROP_TRIES):
            left, _dropped = remove_left(connection, self.stepping, intent)
            if not left:
                break
            self.sleep(_BETWEEN_DROPS_SECONDS)
        return left


def remove_left(
    connection: Connection, stepping: Stepping, intent: Intent
) -> tuple[tuple[InvalidIndex, ...], int]:
    """Try once to drop what a rebuild of ours left; return what stays, and how many went."""
    with guarded(connection, _PACE, reading=True, any_plan=True):
        left = left_by(intent, invalid_indexes(connection, [intent.table_oid]))
        patience = drop_patience(connection)
    quick = replace(stepping, lock_timeout=timedelta(seconds=patience), settings={})
    dropped = 0
    for index in left:
        if not index.busy and _dropped(quick, index):
            dropped += 1
    if dropped:
        with guarded(connection, _PACE, reading=True, any_plan=True):
            left = left_by(intent, invalid_indexes(connection, [intent.table_oid]))
    return left, dropped


def _dropped(stepping: Stepping, index: InvalidIndex) -> bool:
    with stepping.session() as session:
        try:
            with session.begin():
                leftovers.drop(session, index)
        except DBAPIError as error:
            if condition_of(error) is Condition.CONNECTION_LOST:
                raise
            _log.info("%s could not be dropped yet: %s", index.label, sentence(error))
            return False
    return True


def settle_intents(connection: Connection, stepping: Stepping) -> tuple[int, tuple[str, ...]]:
    """Remove what rebuilds of runs that died left; return how many went, and what is to be told.

    Call it under the lease on the database's maintenance: who began them is gone.
    """
    with guarded(connection, _PACE, reading=True, any_plan=True):
        intents = rebuilds.open_intents(connection)
    removed, told = 0, []
    for intent in intents:
        if not _surely_ours(connection, intent):
            told.append(
                f"an interrupted rebuild of {intent.index_name} seems to have left an index; seen "
                "for the first time, it goes with the next run"
            )
            continue
        left, dropped = remove_left(connection, stepping, intent)
        removed += dropped
        if left:
            told.append(f"{left[0].label}, left by a rebuild of ours, is in use; it stays for now")
            continue
        with guarded(connection, _PACE, any_plan=True):
            rebuilds.end(connection, intent, "its process ended before it did", done=False)
    return removed, tuple(told)


def _surely_ours(connection: Connection, intent: Intent) -> bool:
    """Look a second time, a while later, at a copy whose worker died before it could name it."""
    if intent.artefact is not None:
        inferred = False
    else:
        with guarded(connection, _PACE, reading=True, any_plan=True):
            left = left_by(intent, invalid_indexes(connection, [intent.table_oid]))
        inferred = any(index.oid != intent.index_oid for index in left)
    if not inferred:
        return True
    if intent.seen_ago is not None and intent.seen_ago >= SEEN_TWICE_AFTER:
        return True
    with guarded(connection, _PACE, any_plan=True):
        rebuilds.sighted(connection, intent)
    return False


class _ArtefactNote:
    """Records which index our REINDEX is building, as soon as the catalog shows it."""

    def __init__(self, intent: Intent) -> None:
        self._intent = intent
        self._noted = False

    def __call__(self, watching: Connection, pid: int) -> None:
        """Look once, by the watching connection, in its transaction."""
        if self._noted:
            return
        for index in left_by(self._intent, invalid_indexes(watching, [self._intent.table_oid])):
            if index.oid != self._intent.index_oid and pid in index.held_by:
                rebuilds.saw_artefact(watching, self._intent, index.oid)
                self._noted = True
