"""A table as a user names it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TableName:
    """A table as the user wrote it.

    Without a schema, `name` is looked up as it stands in the search path, and only then read as
    SQL would read it (`schema.table`, `"Quoted"`): a name with a dot or a quote in it stays a name.
    """

    name: str
    schema: str | None = None

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema else self.name
