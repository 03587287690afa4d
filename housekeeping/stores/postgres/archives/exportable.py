"""A table whose rows are to be exported: a dated one, or a partition that was detached."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from psycopg2 import sql

from housekeeping.stores.postgres.statement import identifier


@dataclass(frozen=True, kw_only=True)
class Exportable:
    """Where the rows lie, whose they were, and what tells their table from others of its name."""

    oid: int
    schema: str
    name: str
    source: str
    """label of the table the rows came from"""
    key_columns: tuple[str, ...]
    ledger: Mapping[str, Any]
    """what the ledger knows of it, as JSON takes it; `made_by` is among it"""
    rows: int | None = None
    """that it has to hold; None where nobody counted them before"""
    part_of: str | None = None
    period: str = ""
    parent: tuple[str, str] | None = None
    """schema and name of the table a partition was detached from"""
    bounds: str = ""
    """of a partition"""

    @property
    def relation(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def identifier(self) -> sql.Identifier:
        return identifier(self.schema, self.name)
