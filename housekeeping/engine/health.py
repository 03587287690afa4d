"""The health of the database a run works on: measured once for all runs, judged by the run's limits."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from redis import Redis
from sqlalchemy import Connection

from housekeeping.policies.health import HealthLimits, Reading, Verdict
from housekeeping.stores.postgres.connection import place
from housekeeping.stores.postgres.health.replication import REPLICATION
from housekeeping.stores.postgres.health.sampling import ROLE, Sampler, signals_for
from housekeeping.stores.postgres.health.signals import UNKNOWN, Facts, Seen, Signal
from housekeeping.stores.redis.health import Sample, SharedSample


@dataclass
class Judge:
    """Judges samples one after the other; remembers what it has stopped for, and the sample before."""

    signals: Sequence[Signal]
    _holding: set[str] = field(default_factory=set)
    _latest: Sample = field(default_factory=dict)
    _before: Sample = field(default_factory=dict)

    def judge(self, sample: Sample) -> tuple[Reading, ...]:
        """Return every signal's answer."""
        if sample != self._latest:
            self._before, self._latest = self._latest, sample
        readings = tuple(self._reading(signal, sample) for signal in self.signals)
        self._holding = {each.signal for each in readings if each.verdict is Verdict.STOP}
        return readings

    @property
    def replicated(self) -> bool:
        facts: Facts = self._latest.get(REPLICATION, {})
        return bool(facts.get("standbys"))

    def _reading(self, signal: Signal, sample: Sample) -> Reading:
        facts: Facts | None = sample.get(signal.name)
        if facts is None:
            return signal.unknown("it was not measured")
        if UNKNOWN in facts:
            return signal.unknown(str(facts[UNKNOWN]))
        before: Facts | None = self._before.get(signal.name)
        holding, role = signal.name in self._holding, str(sample.get(ROLE, "our role"))
        if before is not None and UNKNOWN in before:
            before = None
        return signal.judge(Seen(facts, before, holding, role))


class Health:
    """Answers how the database is, by a sample that all runs on it share through Redis."""

    def __init__(
        self, limits: HealthLimits, connection: Connection, redis: Redis, tables: frozenset[int]
    ) -> None:
        signals = signals_for(limits, tables)
        self._judge = Judge(signals)
        self._sampler = Sampler(connection, signals)
        self._shared = SharedSample(redis, f"{_place(connection)}:{self._sampler.identity()}")

    @property
    def replicated(self) -> bool:
        """Whether standbys have to keep up with what a run writes, by the latest sample."""
        return self._judge.replicated

    def readings(self, max_age: float) -> tuple[Reading, ...]:
        """Return every signal's answer, by a sample that is at most so many seconds old.

        Raises DBAPIError when the connection is gone.
        """
        if not self._judge.signals:
            return ()
        return self._judge.judge(self._shared.take(max_age, self._measure))

    def _measure(self) -> dict[str, Any]:
        return self._sampler.measure()


def _place(connection: Connection) -> str:
    return place(connection.engine.url.render_as_string(hide_password=True))
