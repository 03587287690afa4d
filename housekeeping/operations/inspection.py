"""What `housekeeping check` asks of a policy: everything a run would, and not a row changed."""

from dataclasses import dataclass

from sqlalchemy import Connection

from housekeeping.engine.planning import Planner
from housekeeping.policies.pace import Pace
from housekeeping.policies.purge import PurgePolicy
from housekeeping.stores.postgres.connection import connected, guarded, place
from housekeeping.stores.postgres.cutoffs import cutoffs_at, database_now
from housekeeping.stores.postgres.ledger_schema import ensure_ledger, ledger_missing
from housekeeping.stores.postgres.preflight import resolve

_APPLICATION = "hk:check"


@dataclass(frozen=True)
class Inspected:
    """A policy that can run."""

    told: str
    warnings: tuple[str, ...]


def inspect(policy: PurgePolicy, *, make_ledger: bool) -> Inspected:
    """Resolve a policy and plan its run. Raises the PolicyRefused a run would raise."""
    with connected(policy.database_url, _APPLICATION) as connection:
        ledger = _ledger(connection, make=make_ledger)
        with guarded(connection, policy.pace, reading=True, any_plan=True):
            now = database_now(connection)
            target = resolve(connection, policy)
            plan = Planner(connection, target, now, cutoffs_at(policy, now)).plan()
    walks = ", ".join(walk.name for walk in plan.walks)
    told = (
        f"{target.facts.label}: about {plan.estimate:,} of {plan.table_rows:,} rows expired; "
        f"{walks} ({plan.reason}); {ledger}"
    )
    return Inspected(told, target.warnings)


def inspect_ledger(url: str, *, make: bool) -> str:
    """Say whether the housekeeping database holds the ledger."""
    with connected(url, _APPLICATION) as connection:
        return f"{place(url)}: {_ledger(connection, make=make)}"


def _ledger(connection: Connection, *, make: bool) -> str:
    if make:
        ensure_ledger(connection)
        return "ledger ready"
    with guarded(connection, Pace(), reading=True, any_plan=True):
        missing = ledger_missing(connection, to_be_made=True)
    return "the ledger will be made on first use" if missing else "ledger ready"
