"""What `housekeeping check` asks of a policy: everything a run would, and not a row changed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from housekeeping.engine.health import Judge
from housekeeping.engine.limits import Expectation, Limit, expired_by
from housekeeping.engine.planning import Plan, Planner
from housekeeping.engine.purging import Tally
from housekeeping.operations.dry_runs.outlook import look_back, outlook
from housekeeping.operations.partitions.in_parts import Parts
from housekeeping.policies.errors import AllowanceExceeded
from housekeeping.policies.health import HealthLimits, Reading
from housekeeping.policies.pace import Pace
from housekeeping.policies.purge import PurgePolicy
from housekeeping.stores.files.exports import Exports
from housekeeping.stores.postgres.connection import connected, guarded, place
from housekeeping.stores.postgres.cutoffs import cutoffs_at, database_now
from housekeeping.stores.postgres.health.sampling import Sampler, signals_for
from housekeeping.stores.postgres.ledger_schema import ensure_ledger, ledger_missing
from housekeeping.stores.postgres.predicate import Predicate
from housekeeping.stores.postgres.preflight import Target, resolve

_APPLICATION = "hk:check"
_SHORT = timedelta(hours=1)
_NEARLY_ALL = 0.9
_LARGE = 10_000  # rows; a small table may well be emptied every day


@dataclass(frozen=True)
class Inspected:
    """A policy that can run."""

    told: str
    warnings: tuple[str, ...]
    table: str = ""
    """what it works on, the same for every policy on one table"""


def inspect_purge(policy: PurgePolicy) -> Inspected:
    """Resolve a policy and plan its run; try the place of exports by a small file of its own.

    Raises the PolicyRefused a run would raise, and ExportUnreachable.
    """
    with connected(policy.database_url, _APPLICATION) as connection:
        with guarded(connection, policy.pace, reading=True, any_plan=True):
            now = database_now(connection)
            target = resolve(connection, policy)
            cutoffs = cutoffs_at(policy, now)
            planned = _planned(connection, target, now, cutoffs)
        price = _price(connection, target, planned.plan)
        if policy.partitions.export is not None:
            Exports(policy.partitions.export).place.require()
        doubts = (*_about_ages(policy), *_about_share(connection, target, planned))
    plan = planned.plan
    told = (
        f"{target.facts.label}: about {plan.estimate:,} of {plan.table_rows:,} rows expired; "
        f"{planned.told}{price}"
    )
    if target.holds_told:
        told += f"; under {', '.join(target.holds_told)}"
    # A table in parts gives whole ones: it can't be told against another policy's rows.
    table = "" if target.in_parts else f"{place(policy.database_url)}/{target.facts.label}"
    return Inspected(told, (*target.warnings, *planned.warnings, *doubts), table)


@dataclass(frozen=True)
class _Planned:
    plan: Expectation
    told: str
    warnings: tuple[str, ...]
    predicates: tuple[Predicate, ...]


def _planned(
    connection: Connection, target: Target, now: datetime, cutoffs: Mapping[str, datetime]
) -> _Planned:
    planner = Planner(connection, target, now, cutoffs)
    if target.in_parts:
        limited = target.policy.pace.row_budget is not None
        looked = Parts(connection, target, cutoffs, limited=limited).look()
        return _Planned(looked.plan, looked.plan.told, looked.warnings, (planner.predicate(),))
    plan = planner.plan()
    told = f"{', '.join(walk.name for walk in plan.walks)} ({plan.reason})"
    return _Planned(plan, told, (), tuple(walk.predicate for walk in plan.walks))


def _price(connection: Connection, target: Target, plan: Expectation) -> str:
    """Tell what a run on an ordinary table would cost; opens transactions of its own."""
    if not isinstance(plan, Plan):
        return ""
    past = look_back(connection, target.policy, target.facts.label, None)
    price = outlook(connection, target, plan, past).price_of(plan.estimate)
    return f"; a run would take about {price.seconds:,.1f} s and {price.wal_bytes / 1e6:,.0f} MB of WAL"


def _about_ages(policy: PurgePolicy) -> Iterator[str]:
    if policy.doubts:
        yield from policy.doubts
        return
    short = {rule.reason: rule.keep_for for rule in policy.rules if rule.keep_for < _SHORT}
    for reason, kept in short.items():
        yield (
            f"rows expire ({reason}) {kept.total_seconds():g} seconds after their age; if that is not "
            'meant, write days as "30d"'
        )


def _about_share(connection: Connection, target: Target, planned: _Planned) -> tuple[str, ...]:
    """Tell of a run that would stop at its limit, or has none and would take nearly everything."""
    plan, policy = planned.plan, target.policy
    if policy.allowance.given:
        limit = Limit(connection, target, Tally())
        try:
            limit.check(plan, planned.predicates, policy.pace.row_budget)
        except AllowanceExceeded as exceeded:
            return (f"a run would stop: {exceeded.message}",)
        return ()
    nearly = int(_NEARLY_ALL * plan.table_rows) + 1
    if plan.table_rows <= _LARGE or plan.estimate < nearly:
        return ()
    found = expired_by(connection, target, planned.predicates, nearly)
    if found is not None and found < nearly:
        return ()  # most of it is kept, or statistics are from another time
    return (
        f"a run would take more than {_NEARLY_ALL:.0%} of {target.facts.label}. A wrong age_unit (s for "
        "ms) or age looks like that; allow_share = 0.5 makes such a run stop and ask",
    )


def health_of(url: str, limits: HealthLimits) -> tuple[Reading, ...]:
    """Return what every signal of a database says now, by a policy's limits."""
    signals = signals_for(limits)
    with connected(url, _APPLICATION) as connection:
        return Judge(signals).judge(Sampler(connection, signals).measure())


def ledger_told(url: str, *, make: bool) -> str:
    """Say whether a database holds the ledger, and make it where asked to."""
    with connected(url, _APPLICATION) as connection:
        if make:
            ensure_ledger(connection)
            return "ledger ready"
        with guarded(connection, Pace(), reading=True, any_plan=True):
            missing = ledger_missing(connection, to_be_made=True)
    return "the ledger will be made on first use" if missing else "ledger ready"
