"""Named statements: a DBA reads in pg_stat_activity and the log which of ours is running."""

from dataclasses import dataclass
from typing import Any

from psycopg2 import sql
from sqlalchemy import Connection, CursorResult


@dataclass(frozen=True)
class Statement:
    """An SQL statement with a name. Values are bound; names go through `identifier`."""

    name: str
    body: sql.Composable

    def text(self, connection: Connection) -> str:
        """Return the SQL as it is sent, with `%(name)s` where values are bound."""
        driver = connection.connection.driver_connection
        assert driver is not None
        body = self.body.as_string(driver)
        return f"/* housekeeping.{self.name} */ {body.strip()}"


def execute(
    connection: Connection, statement: Statement, **values: Any
) -> CursorResult[*tuple[Any, ...]]:
    """Run a statement with its values bound."""
    text = statement.text(connection)
    if not values:
        # Only without values does the driver leave the text alone.
        alone = {"no_parameters": True}
        return connection.exec_driver_sql(text.replace("%%", "%"), execution_options=alone)
    return connection.exec_driver_sql(text, values)


def raw(expression: str) -> sql.SQL:
    """Return a checked user expression as SQL; its percent signs are not placeholders."""
    return sql.SQL(expression.replace("%", "%%"))


def identifier(*names: str) -> sql.Identifier:
    """Return names quoted, joined by dots; a percent sign in a name is not a placeholder."""
    return sql.Identifier(*(name.replace("%", "%%") for name in names))
