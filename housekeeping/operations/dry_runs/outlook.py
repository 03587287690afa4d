"""What is known of a run before it begins: its plan, its tables, and how former runs went."""

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from housekeeping.engine.planning import KeyPlan, Plan
from housekeeping.engine.price.pricing import Price, learned, price
from housekeeping.engine.price.work import Going, Work
from housekeeping.policies.errors import LedgerRefused, StoreUnreachable
from housekeeping.policies.pace import Pace
from housekeeping.policies.purge import PurgePolicy
from housekeeping.stores.postgres.connection import connected, guarded, place
from housekeeping.stores.postgres.fan_out import DELETED, KEEPS, UPDATED, Branch, fan_out
from housekeeping.stores.postgres.ledger_schema import ledger_missing
from housekeeping.stores.postgres.preflight import Target
from housekeeping.stores.postgres.run_ledger import worked
from housekeeping.stores.postgres.storage import Server, Storage, server_of, storage_of
from housekeeping.stores.postgres.window_ledger import remembered_sizes
from housekeeping.stores.postgres.yardstick import slowness

_FORMER_RUNS = 5
_TELLING_ROWS = 1_000  # what a run of fewer took is overhead


@dataclass(frozen=True)
class Past:
    """What is known of this server and of former runs."""

    runs: tuple[tuple[int, float], ...]
    """rows and seconds worked of this policy's former runs"""
    sizes: Mapping[str, int]
    """windows former runs on this table ended with, by walk"""
    slowness: float
    """of the server right now, see stores.postgres.yardstick"""


@dataclass(frozen=True)
class Outlook:
    """What a run is expected to do and to cost."""

    target: Target
    plan: Plan
    storage: Storage
    server: Server
    branches: tuple[Branch, ...]
    past: Past

    def along(self, rows: float) -> dict[str, float]:
        """Return the rows of the run's own child tables that go with so many rows, by their key."""
        found: dict[str, float] = {}
        for branch in self.branches:
            if branch.child is not None:
                key = branch.child.key
                found[key] = found.get(key, 0.0) + rows * branch.per_row
        return found

    def work(self, rows: float, children: Mapping[str, float] | None = None) -> Work:
        """Return what it takes to remove so many rows; `children`: rows that were counted."""
        keys = [walk for walk in self.plan.walks if isinstance(walk, KeyPlan)]
        limited = min(1.0, rows / self.plan.estimate) if self.plan.estimate else 1.0
        entries = max(rows, limited * sum(walk.entries for walk in keys))
        return Work(
            storage=self.storage,
            rows=rows,
            below=max(rows, limited * self.plan.below),
            order=self.plan.order,
            by_index=bool(keys),
            entries=entries if keys else 0.0,
            server=self.server,
            going=tuple(self._going(rows, children or {})),
            keys=sum(1 for branch in self.branches if not branch.through),
            keepers=len(self.target.keepers),
            pinned=self.target.pins,
            archived=self.target.layout is not None,
        )

    def price(self, work: Work) -> tuple[Price, float]:
        """Return what work costs, and how much slower than the model: as former runs were, or as
        the server is right now.
        """
        pace = self.target.policy.pace
        factor = learned(self.past.runs, work, pace) if self.past.runs else self.past.slowness
        walk = self.plan.walks[0].name if self.plan.walks else ""
        return price(work, pace, self.past.sizes.get(walk), factor), factor

    def price_of(self, rows: float) -> Price:
        """Return what it costs to remove so many rows."""
        return self.price(self.work(rows))[0]

    def _going(self, rows: float, counted: Mapping[str, float]) -> Iterable[Going]:
        expected = self.along(rows)
        for branch in self.branches:
            if branch.effect == KEEPS:
                continue
            gone = rows * branch.per_row
            if branch.child is not None and expected[branch.child.key]:
                key = branch.child.key
                gone *= counted.get(key, expected[key]) / expected[key]
            yield Going(
                storage=branch.storage,
                rows=gone,
                updated=branch.effect == UPDATED,
                by_trigger=branch.child is None and branch.effect == DELETED,
            )


def outlook(connection: Connection, target: Target, plan: Plan, past: Past) -> Outlook:
    """Look at what a plan will meet; reads only."""
    with guarded(connection, target.policy.pace, reading=True, any_plan=True):
        return Outlook(
            target=target,
            plan=plan,
            storage=storage_of(connection, target.facts.oid),
            server=server_of(connection),
            branches=fan_out(connection, target.facts, plan.table_rows, target.children),
            past=past,
        )


def look_back(
    connection: Connection, policy: PurgePolicy, label: str, ledger_url: str | None
) -> Past:
    """Return what former runs on a table left in the ledger: nothing where it is missing or closed
    to us; a dry run needs none.
    """
    with guarded(connection, policy.pace, reading=True, any_plan=True):
        slow = slowness(connection)
    sizes: dict[str, int] = {}
    runs: tuple[tuple[int, float], ...] = ()
    where = f"{place(policy.database_url)}/{label}"
    elsewhere = ledger_url not in (None, policy.database_url)
    try:
        with guarded(connection, policy.pace, reading=True, any_plan=True):
            if not ledger_missing(connection):
                sizes = remembered_sizes(connection, label)
        opened = connected(ledger_url or "", "hk:ledger") if elsewhere else nullcontext(connection)
        with opened as ledger, guarded(ledger, Pace(), reading=True, any_plan=True):
            if not ledger_missing(ledger):
                found = worked(
                    ledger,
                    policy.operation,
                    policy.name,
                    where,
                    least=_TELLING_ROWS,
                    runs=_FORMER_RUNS,
                )
                runs = tuple(found)
    except (LedgerRefused, StoreUnreachable, SQLAlchemyError):
        pass
    return Past(runs, sizes, slow)
