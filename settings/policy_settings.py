"""The keys every policy has: whether it runs, on which rows, and how gently."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator

from housekeeping.policies.allowance import Allowance
from housekeeping.policies.health import HealthLimits
from housekeeping.policies.hours import MaintenanceHours
from housekeeping.policies.pace import Pace
from housekeeping.policies.policy import Policy
from housekeeping.policies.purge import KeepNewest, PurgePolicy
from settings.durations import BareSeconds, Duration, between
from settings.health_settings import HealthSettings
from settings.hours import Hours, TimeZone
from settings.safety import Safety
from settings.section import Contradiction, Section
from settings.values import Expression, Share, Switch, TableShare, read_name, read_whole, whole

_MS = timedelta(milliseconds=1)
_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)
_SHORT = timedelta(hours=1)  # nobody who thinks in days writes a number as large
_MOST_GROUP_COLUMNS = 4
_MOST_PER_GROUP = 1_000


def _group(value: object) -> tuple[str, ...]:
    columns = value if isinstance(value, list | tuple) else [value]
    if not 1 <= len(columns) <= _MOST_GROUP_COLUMNS:
        raise ValueError(f"give one to {_MOST_GROUP_COLUMNS} columns")
    return tuple(read_name(column) for column in columns)


def _rows_or_never(value: object) -> int | None:
    if value is None or value is False or str(value).strip().lower() in ("false", "off", "never"):
        return None
    rows = read_whole(value)
    if rows is None or rows < 1:
        raise ValueError("give a whole number of rows 1 or more, or false for never")
    return rows


RowsOrNever = Annotated[int | None, BeforeValidator(_rows_or_never)]


@dataclass(frozen=True)
class Offer:
    """A policy the settings make."""

    settings: "Switched"
    policy: Policy
    scheduled: bool = True
    """on the schedule and looked at by `check`; otherwise it runs only when asked for"""


class Switched(Section):
    """What every policy's settings have.

    `enabled`: false keeps the policy in the file without running it.
    `only_between`: the hours it may work in, such as "22:00-04:00"; left out, always.
    `only_between_time_zone`: whose clock those hours are on.
    """

    enabled: Switch = True
    only_between: Hours | None = None
    only_between_time_zone: TimeZone = "UTC"

    def doubts(self) -> tuple[str, ...]:
        """Tell of ages that were written as a bare number and are over in less than an hour."""
        ages: dict[str, object] = {}
        for name, value in self:
            below = value.items() if isinstance(value, Mapping) else ()
            ages |= {name: value} | {f"{name}.{key}": age for key, age in below}
        return tuple(
            f"{name} = {age.total_seconds():g} means {age.total_seconds():g} seconds; write "
            f'"{age.total_seconds():g}d" for days'
            for name, age in ages.items()
            if isinstance(age, BareSeconds) and age < _SHORT
        )

    @property
    def hours(self) -> MaintenanceHours | None:
        """When the policy may work; None is always."""
        if self.only_between is None:
            return None
        return replace(self.only_between, time_zone=self.only_between_time_zone)


class PolicySettings(Switched):
    """Whether a policy runs, on which rows, and how gently. Defaults suit a busy database.

    `where`: an SQL expression every expired row must also meet.
    `batch_target`: how long one transaction should take, 10ms to 10s.
    `duty`: share of the time a run works, 0.01 to 1; 1 never rests.
    `time_budget`: a run leaves between two windows once it is over, 1s to 24h. 50 minutes leave an
    hourly schedule ten minutes of air.
    `row_budget`: at most this many rows a run; left out, there is no limit.
    `lock_timeout`: how long a statement waits for a row another session holds, 1ms to 60s.
    `allow_share`: a run that would take more of its table than this share stops and asks (`--yes`);
    0.01 to 1, or "20 %". `allow_rows`: the same in rows. Left out, what [safety] says.
    `keep_newest`: so many of the newest rows stay whatever their age, 1 to 100,000.
    `keep_newest_per`: of each group, then up to 1,000; the columns that make one, at most four.
    `batch_rows`: rows the first window aims at, 1 to 1,000,000; time decides from then on.
    `health`: from where on the database is too busy for this policy; over `[health]` of all.
    `vacuum_after_rows`: a table that lost so many rows in a run is vacuumed and analyzed after it;
    left out or false, never.
    `workers`: at most so many workers share a run along the heap, 1 to 64; each keeps to `duty`.
    `split_above_rows`: only a run of which the planner expects so many rows to go is shared.
    """

    where: Expression | None = None
    batch_target: Annotated[Duration, between(10 * _MS, 10 * _SECOND)] = 250 * _MS
    duty: Share = 0.5
    time_budget: Annotated[Duration, between(_SECOND, _DAY)] = timedelta(minutes=50)
    row_budget: Annotated[int, whole(1)] | None = None
    lock_timeout: Annotated[Duration, between(_MS, 60 * _SECOND)] = 200 * _MS
    batch_rows: Annotated[int, whole(1, 1_000_000)] = 2_000
    health: HealthSettings | None = None
    vacuum_after_rows: RowsOrNever = None
    workers: Annotated[int, whole(1, 64)] = 1
    split_above_rows: Annotated[int, whole(1)] = 1_000_000
    allow_share: TableShare | None = None
    allow_rows: Annotated[int, whole(1)] | None = None
    keep_newest: Annotated[int, whole(1, 100_000)] | None = None
    keep_newest_per: Annotated[tuple[str, ...], BeforeValidator(_group)] = ()

    @classmethod
    def contradictions(cls, given: Mapping[str, Any]) -> Iterator[Contradiction]:
        """Tell a group of which nothing is kept."""
        if not given.get("keep_newest_per"):
            return
        rows = read_whole(given.get("keep_newest"))
        if given.get("keep_newest") is None:
            yield (("keep_newest",), "missing: say how many rows of each group stay")
        elif rows is not None and rows > _MOST_PER_GROUP:
            yield (
                ("keep_newest",),
                f"is more than {_MOST_PER_GROUP:,}, and every row that expires would read as many of "
                "its group in an index; give fewer, or leave keep_newest_per out",
            )

    def protect(self, policy: Policy, safety: Safety) -> Policy:
        """Return a policy with what it may not take: limits, the newest rows."""
        allowance = Allowance(
            share=safety.allow_share if self.allow_share is None else self.allow_share,
            rows=safety.allow_rows if self.allow_rows is None else self.allow_rows,
        )
        policy = replace(policy, allowance=allowance)
        if isinstance(policy, PurgePolicy) and self.keep_newest is not None:
            newest = KeepNewest(rows=self.keep_newest, per=self.keep_newest_per)
            policy = replace(policy, keep_newest=newest)
        return policy

    def pace(self, lease_ttl: timedelta) -> Pace:
        """Return how gently the engine goes; `lease_ttl` is the whole installation's."""
        return Pace(
            batch_target=self.batch_target,
            duty=self.duty,
            time_budget=self.time_budget,
            row_budget=self.row_budget,
            lock_timeout=self.lock_timeout,
            lease_ttl=lease_ttl,
            first_window_rows=self.batch_rows,
            health=self.health.limits() if self.health else HealthLimits(),
            only_between=self.hours,
            workers=self.workers,
            split_above_rows=self.split_above_rows,
        )
