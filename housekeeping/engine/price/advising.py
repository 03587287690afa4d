"""What would make a run cheaper: only what really would, as lines to paste."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from housekeeping.engine.planning import SMALL_TABLE_BLOCKS, KeyPlan, Plan
from housekeeping.stores.postgres.estimates import estimated_among, estimated_where
from housekeeping.stores.postgres.explaining import Explained
from housekeeping.stores.postgres.fan_out import Branch
from housekeeping.stores.postgres.index_advice import (
    age_index,
    analyze,
    lookup_index,
    where_is_indexable,
)
from housekeeping.stores.postgres.preflight import Target

# A partial index pays where it leaves nine rows of ten out; below so many entries passed in vain,
# 20 ms a run, no index is worth what it costs each write.
_SPARSE = 0.1
_MANY_ENTRIES = 100_000


@dataclass(frozen=True)
class Advice:
    """A line to paste, and why."""

    sql: str
    because: str


class Adviser:
    """Looks for what would help a run; inside a reading transaction that may choose any plan."""

    def __init__(self, connection: Connection, target: Target, plan: Plan, rows: int) -> None:
        self._connection = connection
        self._target = target
        self._plan = plan
        self._rows = rows

    def advice(
        self, branches: Sequence[Branch], statements: Sequence[Explained]
    ) -> tuple[Advice, ...]:
        """Return what would help, the greatest help first; nothing where all is well."""
        found = [*self._lookups(statements), *self._never_analyzed(branches)]
        if (index := self._age_index()) is not None:
            found.insert(0, index)
        return tuple(dict.fromkeys(found))

    def _age_index(self) -> Advice | None:
        facts = self._target.facts
        if facts.rows < 0 or facts.pages <= SMALL_TABLE_BLOCKS:
            return None  # nothing is known, or a whole scan costs less than asking where to look
        why = self._without_index() if not self._plan.served else self._passed_in_vain()
        if why is None:
            return None
        line = age_index(
            self._connection,
            self._target,
            only_where=self._where_is_sparse(),
            only_statuses=self._statuses_are_sparse(),
        )
        return None if line is None else Advice(line, why)

    def _without_index(self) -> str | None:
        share = self._rows / max(1, self._plan.table_rows)
        if share >= self._plan.heap_from:
            return None
        pages = self._target.facts.pages
        return f"every run reads all {pages:,} blocks; {share:.1%} of the rows expired"

    def _passed_in_vain(self) -> str | None:
        """Say so where an index serves the age, but most of what it leads to stays."""
        walks = [walk for walk in self._plan.walks if isinstance(walk, KeyPlan)]
        entries = sum(walk.entries for walk in walks)
        if entries < _MANY_ENTRIES or self._rows >= _SPARSE * entries:
            return None
        served_by_where = all(walk.probe.key.where is not None for walk in walks)
        served_by_status = all(walk.probe.key.column is not None for walk in walks)
        rule_has_column = self._target.rules[0].column is not None
        may_lead = rule_has_column and not served_by_status
        may_leave_out = self._where_is_sparse() and not served_by_where
        if not (may_lead or may_leave_out):
            return None
        return f"every run passes about {entries:,} entries of {walks[0].index}, most in vain"

    def _where_is_sparse(self) -> bool:
        where = self._target.policy.where
        if where is None or not where_is_indexable(where):
            return False
        found = estimated_where(self._connection, self._target.facts, where)
        return found < _SPARSE * self._plan.table_rows

    def _statuses_are_sparse(self) -> bool:
        column = self._target.rules[0].column
        if column is None:
            return False
        values = [rule.value for rule in self._target.rules]
        found = estimated_among(self._connection, self._target.facts, column, values)
        return found < _SPARSE * self._plan.table_rows

    def _lookups(self, statements: Sequence[Explained]) -> Iterator[Advice]:
        read = {table for statement in statements for table in statement.reads_whole}
        for keeper in self._target.keepers:
            name = (keeper.facts.schema, keeper.facts.name)
            if name in read:
                yield Advice(
                    lookup_index(self._connection, *name, keeper.kept_by.column),
                    f"every window reads all of {keeper.facts.label} to find what it keeps",
                )

    def _never_analyzed(self, branches: Sequence[Branch]) -> Iterator[Advice]:
        facts = self._target.facts
        because = "it was never analyzed: estimates of it are guesses"
        if facts.rows < 0 and facts.pages > SMALL_TABLE_BLOCKS:
            yield Advice(analyze(facts.schema, facts.name), because)
        for branch in branches:
            key, storage = branch.key, branch.storage
            if not storage.analyzed and storage.pages > SMALL_TABLE_BLOCKS:
                yield Advice(analyze(key.child_schema, key.child), because)
