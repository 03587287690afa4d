"""Rows of an export as literals in a statement: each is read by its type's own input function."""

from collections.abc import Sequence
from typing import Any

from psycopg2 import sql

from housekeeping.stores.postgres.archives.rows import TextRow


def bound(rows: Sequence[TextRow]) -> dict[str, Any]:
    """Return the values of rows under the names `typed_values` gives their placeholders."""
    return {
        f"{place}_{number}": value
        for place, row in enumerate(rows)
        for number, value in enumerate(row)
    }


def typed_values(count: int, casts: Sequence[str], *, places: bool = False) -> sql.SQL:
    """Return so many rows of placeholders, called `row_column`.

    Each literal is read by its type's own input function. As one text: composed of some thousand
    pieces, a batch took longer to be written than to be inserted.
    """
    typed = [cast.replace("%", "%%") for cast in casts]
    lines = []
    for row in range(count):
        fields = [f"%({row}_{column})s::{cast}" for column, cast in enumerate(typed)]
        lines.append(f"({', '.join([str(row), *fields] if places else fields)})")
    return sql.SQL(", ".join(lines))
