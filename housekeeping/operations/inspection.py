"""What `housekeeping check` asks of a policy: everything a run would, and not a row changed."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from housekeeping.engine.health import Judge
from housekeeping.engine.planning import Planner
from housekeeping.operations.in_parts import Parts
from housekeeping.operations.outlook import look_back, outlook
from housekeeping.policies.health import HealthLimits, Reading
from housekeeping.policies.pace import Pace
from housekeeping.policies.purge import PurgePolicy
from housekeeping.stores.postgres.connection import connected, guarded, place
from housekeeping.stores.postgres.cutoffs import cutoffs_at, database_now
from housekeeping.stores.postgres.health.sampling import Sampler, signals_for
from housekeeping.stores.postgres.ledger_schema import ensure_ledger, ledger_missing
from housekeeping.stores.postgres.preflight import Target, resolve

_APPLICATION = "hk:check"


@dataclass(frozen=True)
class Inspected:
    """A policy that can run."""

    told: str
    warnings: tuple[str, ...]
    table: str = ""
    """what it works on, the same for every policy on one table"""


def inspect_purge(policy: PurgePolicy) -> Inspected:
    """Resolve a policy and plan its run. Raises the PolicyRefused a run would raise."""
    with connected(policy.database_url, _APPLICATION) as connection:
        with guarded(connection, policy.pace, reading=True, any_plan=True):
            now = database_now(connection)
            target = resolve(connection, policy)
            cutoffs = cutoffs_at(policy, now)
            if target.in_parts:
                return _of_parts(connection, target, cutoffs)
            plan = Planner(connection, target, now, cutoffs).plan()
        past = look_back(connection, policy, target.facts.label, None)
        price = outlook(connection, target, plan, past).price_of(plan.estimate)
    told = (
        f"{target.facts.label}: about {plan.estimate:,} of {plan.table_rows:,} rows expired; "
        f"{', '.join(walk.name for walk in plan.walks)} ({plan.reason}); a run would take about "
        f"{price.seconds:,.1f} s and {price.wal_bytes / 1e6:,.0f} MB of WAL"
    )
    table = f"{place(policy.database_url)}/{target.facts.label}"
    return Inspected(told, target.warnings, table)


def health_of(url: str, limits: HealthLimits) -> tuple[Reading, ...]:
    """Return what every signal of a database says now, by a policy's limits."""
    signals = signals_for(limits)
    with connected(url, _APPLICATION) as connection:
        return Judge(signals).judge(Sampler(connection, signals).measure())


def _of_parts(connection: Connection, target: Target, cutoffs: Mapping[str, datetime]) -> Inspected:
    limited = target.policy.pace.row_budget is not None
    looked = Parts(connection, target, cutoffs, limited=limited).look()
    told = (
        f"{target.facts.label}: about {looked.plan.estimate:,} of "
        f"{looked.plan.table_rows:,} rows expired; {looked.plan.told}"
    )
    return Inspected(told, (*target.warnings, *looked.warnings))


def ledger_told(url: str, *, make: bool) -> str:
    """Say whether a database holds the ledger, and make it where asked to."""
    with connected(url, _APPLICATION) as connection:
        if make:
            ensure_ledger(connection)
            return "ledger ready"
        with guarded(connection, Pace(), reading=True, any_plan=True):
            missing = ledger_missing(connection, to_be_made=True)
    return "the ledger will be made on first use" if missing else "ledger ready"
