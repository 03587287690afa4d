"""A table whose indexes are mostly air."""

import pytest

from tests.integration.database import Database
from tests.integration.upkeep import bloat


@pytest.fixture
def jobs(database: Database) -> Database:
    bloat(database)
    return database
