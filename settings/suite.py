"""All settings of one installation, and the policies that follow from them."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any

from pydantic import Field, ValidationError

from housekeeping.policies.errors import ConfigurationRefused
from housekeeping.policies.hold import Hold
from housekeeping.policies.policy import Policy
from settings import archives as archives_section
from settings import maintenance as maintenance_section
from settings import milvaion as milvaion_section
from settings import tables as tables_section
from settings.addresses import (
    BrokerUrl,
    DatabaseUrl,
    RedisUrl,
    ResultBackendUrl,
    StoreUrl,
    database_at,
    for_celery,
)
from settings.archives import ArchivesPolicy, Expiry, offers
from settings.durations import Duration, between
from settings.health_settings import HealthSettings
from settings.layers import spelling
from settings.maintenance import DatabaseMaintenance, MaintenanceSettings
from settings.maintenance_config import SECTION, MaintenanceConfig
from settings.milvaion import Milvaion
from settings.policy_settings import Offer, PolicySettings
from settings.problems import did_you_mean
from settings.safety import HoldSettings, Safety
from settings.section import Contradiction, Section
from settings.tables import TablePolicy
from settings.values import Name, whole

OPERATIONS: tuple[str, ...] = (
    milvaion_section.RETENTION,
    milvaion_section.DEAD_LETTERS,
    milvaion_section.ARCHIVE,
    tables_section.PURGE,
    tables_section.ARCHIVE,
    archives_section.OPERATION,
    maintenance_section.OPERATION,
)
_SWITCHED_ON_BY = {
    milvaion_section.RETENTION: "[milvaion]",
    milvaion_section.DEAD_LETTERS: "[milvaion]",
    milvaion_section.ARCHIVE: "[milvaion]",
    tables_section.PURGE: "[tables.NAME]",
    tables_section.ARCHIVE: "[tables.NAME.archive]",
    archives_section.OPERATION: "[milvaion.archive_expiry] or [archives.NAME]",
    maintenance_section.OPERATION: "[milvaion] or [maintenance.NAME]",
}
_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)
_DATABASE_MISSING = "missing: give it here, or database_url at the top of the file for all systems"


class Suite(Section):
    """All settings of one installation.

    `redis_url`: leases and schedules; the one setting nothing runs without.
    `broker_url`, `result_backend`: Celery's; left out, `redis_url`.
    `database_url`: the database of every system that names none.
    `queue`: the Celery queue of every task.
    `splay`: how far this installation's schedules are shifted, so that many of them don't start
    at the same second; 0 to 24h.
    `metrics_port`: where Prometheus finds the worker; left out, nowhere.
    `metrics_address`: the address it is served on; 0.0.0.0 for a scraper on another machine.
    `visibility_timeout`: after how long a dead worker's task is handed out again; 2s to 24h.
    `lease_ttl`: how long a dead worker's lease blocks the next run; 1s to 24h.
    `health`: from where on a database is too busy; a policy's own keys win.
    `max_workers_per_database`: at most so many runs, and workers that share one, work on one
    database at once; 1 to 1,000.
    `safety`: how much a run may take without a yes. `holds`: rows nobody may remove.
    """

    redis_url: RedisUrl
    given_broker_url: BrokerUrl | None = Field(default=None, alias="broker_url")
    given_result_backend: ResultBackendUrl | None = Field(default=None, alias="result_backend")
    database_url: DatabaseUrl | None = None
    queue: Name = "housekeeping"
    splay: Annotated[Duration, between(timedelta(0), _DAY)] = 60 * _SECOND
    metrics_port: Annotated[int, whole(1, 65_535)] | None = None
    metrics_address: Name = "127.0.0.1"
    visibility_timeout: Annotated[Duration, between(2 * _SECOND, _DAY)] = 60 * _SECOND
    lease_ttl: Annotated[Duration, between(_SECOND, _DAY)] = 30 * _SECOND
    health: HealthSettings | None = None
    max_workers_per_database: Annotated[int, whole(1, 1_000)] = 2
    milvaion: Milvaion | None = None
    tables: dict[Name, TablePolicy] = Field(default_factory=dict)
    archives: dict[Name, ArchivesPolicy] = Field(default_factory=dict)
    databases: dict[Name, DatabaseMaintenance] = Field(default_factory=dict, alias="maintenance")
    safety: Safety = Safety()
    holds: dict[Name, HoldSettings] = Field(default_factory=dict)
    maintenance: MaintenanceConfig | None = Field(default=None, alias=SECTION)

    @property
    def broker_url(self) -> StoreUrl:
        return self.given_broker_url or for_celery(self.redis_url)

    @property
    def result_backend(self) -> StoreUrl:
        return self.given_result_backend or for_celery(self.redis_url)

    def policies(self, operation: str, name: str | None = None) -> tuple[Policy, ...]:
        """Return the enabled policies of `operation`, or the one called `name`.

        Raises ConfigurationRefused when there is no such operation or policy, or the one named is
        disabled.
        """
        if operation not in OPERATIONS:
            raise ConfigurationRefused(
                f'unknown operation "{operation}"; {did_you_mean(operation, OPERATIONS)}'
            )
        known = {
            offer.policy.name: (offer.settings.enabled, offer.policy)
            for offer in self._paced()
            if offer.policy.operation == operation
        }
        if not known:
            raise ConfigurationRefused(
                f"{operation} has no policy; a section {_SWITCHED_ON_BY[operation]} switches it on"
            )
        if name is None:
            return tuple(policy for enabled, policy in known.values() if enabled)
        if name not in known:
            raise ConfigurationRefused(
                f'{operation} has no policy "{name}"; {did_you_mean(name, tuple(known))}'
            )
        enabled, policy = known[name]
        if not enabled:
            raise ConfigurationRefused(
                f'{operation}: policy "{name}" is disabled; set its enabled = true to run it'
            )
        return (policy,)

    def all_policies(self) -> tuple[Policy, ...]:
        """Return the enabled policies of all operations that run by themselves."""
        return tuple(
            offer.policy for offer in self._paced() if offer.settings.enabled and offer.scheduled
        )

    def every_policy(self) -> tuple[Policy, ...]:
        """Return the policies of all operations, also those disabled or never scheduled."""
        return tuple(offer.policy for offer in self._paced())

    def ledger_urls(self) -> tuple[str, ...]:
        """Return the databases that hold past runs: the housekeeping database, or each target's."""
        if self.database_url:
            return (self.database_url.reveal(),)
        return tuple(dict.fromkeys(policy.database_url for policy in self.all_policies()))

    def target_urls(self) -> tuple[str, ...]:
        """Return every database a policy works on, enabled or not, and the one for all systems."""
        urls = [offer.policy.database_url for offer in self._all()]
        urls += [self.database_url.reveal()] if self.database_url else []
        return tuple({database_at(url): url for url in reversed(urls)}.values())

    def idle_holds(self) -> tuple[str, ...]:
        """Return the names of holds on databases no policy works on."""
        places = {database_at(url) for url in self.target_urls()}
        named = {name: hold.database_url for name, hold in self.holds.items() if hold.database_url}
        return tuple(name for name, url in named.items() if database_at(url.reveal()) not in places)

    def unused_sections(self) -> tuple[str, ...]:
        """Return the sections the user gave that no operation uses yet."""
        return self.maintenance.unused_sections() if self.maintenance else ()

    def describe(self) -> dict[str, Any]:
        """Return all settings as JSON takes them, passwords masked, and what follows from them."""
        settings = self.model_dump(mode="json", by_alias=True)
        return settings | {
            "broker_url": str(self.broker_url),
            "result_backend": str(self.result_backend),
            "policies": [
                {
                    "operation": offer.policy.operation,
                    "name": offer.policy.name,
                    "table": offer.policy.works_on,
                    "enabled": offer.settings.enabled,
                    "scheduled": offer.scheduled,
                }
                for offer in self._paced()
            ],
            "unused_sections": list(self.unused_sections()),
        }

    def _paced(self) -> Iterator[Offer]:
        """Tell all policies, each with what `[health]` says below what it says itself."""
        for offer in self._all():
            if self.health is None:
                yield offer
                continue
            pace = replace(offer.policy.pace, health=self.health.limits(_health_of(offer)))
            yield replace(offer, policy=replace(offer.policy, pace=pace))

    def _all(self) -> Iterator[Offer]:
        for offer in self._offers():
            holds = self._holds_on(offer.policy.database_url)
            policy = replace(offer.policy, holds=holds, doubts=offer.settings.doubts())
            if isinstance(offer.settings, PolicySettings):
                policy = offer.settings.protect(policy, self.safety)
            yield replace(offer, policy=policy)

    def _holds_on(self, database_url: str) -> tuple[Hold, ...]:
        found = []
        for name, hold in self.holds.items():
            url = hold.database_url or self.database_url
            if url is None or database_at(url.reveal()) == database_at(database_url):
                found.append(hold.hold(name))
        return tuple(found)

    def _offers(self) -> Iterator[Offer]:
        yield from self._moving()
        for name, database in self.databases.items():
            url = self._database(database.database_url)
            yield Offer(database, database.policy_called(name, url, self.lease_ttl))
        yield from self._expiries()

    def _moving(self) -> Iterator[Offer]:
        """Tell which rows are deleted or moved."""
        if self.milvaion:
            url = self._database(self.milvaion.database_url)
            yield from self.milvaion.policies(url, self.lease_ttl)
        for name, table in self.tables.items():
            url = self._database(table.database_url)
            yield Offer(table, table.policy(name, url, self.lease_ttl))

    def _expiries(self) -> Iterator[Offer]:
        """Tell how long archives are kept."""
        expiries: list[Expiry] = []
        if self.milvaion and self.milvaion.archive_expiry:
            url = self._database(self.milvaion.database_url)
            name, table = milvaion_section.POLICY_NAME, self.milvaion.occurrences
            expiries.append(Expiry(name, self.milvaion.archive_expiry, url, table))
        for name, each in self.archives.items():
            url = self._database(each.database_url)
            expiries.append(Expiry(name, each, url, each.source))
        yield from offers(expiries, list(self._moving()), self.lease_ttl)

    def _database(self, own: StoreUrl | None) -> str:
        url = own or self.database_url
        return url.reveal() if url else ""  # never empty: `contradictions` saw to it

    @classmethod
    def prepare(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Put what `MaintenanceConfig` says below `[milvaion]`, whose own keys win."""
        upstream = given.get(SECTION)
        if upstream is None:
            return given
        try:
            config = MaintenanceConfig.model_validate(upstream)
        except ValidationError:
            return given  # told by the field itself, with its path
        base = config.as_milvaion_section()
        redis = {"redis_url": base["redis_url"]} if "redis_url" in base else {}
        return {**redis, **given, "milvaion": _over(base, given.get("milvaion", {}))}

    @classmethod
    def contradictions(cls, given: Mapping[str, Any]) -> Iterator[Contradiction]:
        upstream = given.get(SECTION)
        if given.get("redis_url") is None and not _names(upstream, "RedisConnectionString"):
            yield (
                ("redis_url",),
                "missing: leases and schedules need it; give "
                'redis_url = "redis://host:6379/0" or the variable HOUSEKEEPING__REDIS_URL',
            )
        if given.get("milvaion", {}) is None:
            yield (
                ("milvaion",),
                "is empty; give {} to switch it on with its defaults, or leave it out",
            )
        if given.get("database_url") is not None:
            return
        for path, section in _systems(given):
            told_upstream = path == ("milvaion",) and _names(upstream, "DatabaseConnectionString")
            if section.get("database_url") is None and not told_upstream:
                yield (*path, "database_url"), _DATABASE_MISSING


def _health_of(offer: Offer) -> HealthSettings | None:
    if isinstance(offer.settings, PolicySettings | MaintenanceSettings):
        return offer.settings.health
    return None


def _systems(given: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    milvaion = given.get("milvaion")
    if isinstance(milvaion, Mapping):
        yield ("milvaion",), milvaion
    for kind in ("tables", "archives", "maintenance"):
        sections = given.get(kind)
        for name, section in sections.items() if isinstance(sections, Mapping) else ():
            if isinstance(section, Mapping):
                yield (kind, str(name)), section


def _names(section: object, key: str) -> bool:
    return isinstance(section, Mapping) and section.get(spelling(section, key)) is not None


def _over(base: Mapping[str, Any], own: object) -> object:
    """Return `own` with `base` below it, key by key; what is no section is left to be refused."""
    if not isinstance(own, Mapping):
        return own
    merged = dict(base)
    for key, value in own.items():
        below = merged.get(key)
        merged[key] = _over(below, value) if isinstance(below, Mapping) else value
    return merged
