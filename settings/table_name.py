"""A table as users name it: one name, or a list of schema and name."""

from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

from housekeeping.policies.table import TableName
from settings.values import read_name


def read_table(value: object) -> TableName:
    """Return the table `value` names; raises ValueError."""
    if isinstance(value, TableName):
        return value
    if isinstance(value, str):
        return TableName(read_name(value))
    if isinstance(value, list | tuple) and len(value) == len(("schema", "table")):
        schema, name = (read_name(each) for each in value)
        return TableName(name, schema)
    raise ValueError('give a name, or a list of schema and name such as ["public", "events"]')


Table = Annotated[TableName, BeforeValidator(read_table), PlainSerializer(str, return_type=str)]
