"""`[safety]`: how much a run may take without a yes. `[holds.NAME]`: rows nobody may remove."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from housekeeping.policies.hold import Hold
from settings.addresses import DatabaseUrl
from settings.section import Contradiction, Section
from settings.table_name import Table
from settings.values import Expression, Name, TableShare, read_name, whole

_WHY = "say why, such as the number of the case"


def _reason(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{_WHY}; somebody will want to know who may release it")
    return read_name(value)


class Safety(Section):
    """What holds for every policy that says nothing else.

    `allow_share`: a run that would take more of its table than this share stops and asks.
    `allow_rows`: the same in rows.
    """

    allow_share: TableShare | None = None
    allow_rows: Annotated[int, whole(1)] | None = None


class HoldSettings(Section):
    """Rows of a table that stay whatever a policy says, and whatever a run was told.

    `table`, `schema`: as in [tables.NAME].
    `where`: an SQL expression; rows for which it is true are held.
    `reason`: why, for whoever reads the result of a run.
    `database_url`: where the table is; left out, the one for all systems, or without that every
    database a policy works on.
    """

    table: Table
    schema_name: Name | None = Field(default=None, alias="schema")
    where: Expression
    reason: Annotated[str, BeforeValidator(_reason)]
    database_url: DatabaseUrl | None = None

    @classmethod
    def contradictions(cls, given: Mapping[str, Any]) -> Iterator[Contradiction]:
        """Tell what is missing: a hold half written protects nothing."""
        missing = {
            "table": "missing: name the table, or give a list of schema and table",
            "where": "missing: give the SQL expression that is true for held rows; true holds all",
            "reason": f"missing: {_WHY}",
        }
        for key, told in missing.items():
            if key not in given:
                yield (key,), told
        if given.get("schema") is not None and isinstance(given.get("table"), list | tuple):
            yield ("schema",), "is given twice: in the list of table too; keep one of the two"

    def hold(self, name: str) -> Hold:
        """Return what the engine honours; `name` is the NAME of `[holds.NAME]`."""
        table = self.table
        if table.schema is None and self.schema_name is not None:
            table = type(table)(table.name, self.schema_name)
        return Hold(name=name, table=table, where=self.where, reason=self.reason)
