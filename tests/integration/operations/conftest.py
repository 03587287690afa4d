"""Tables as several tests of operations need them."""

import pytest

from housekeeping.engine.run import Surroundings
from tests.integration.archived import archive_two_months
from tests.integration.database import Database
from tests.integration.operations.sharing import fill
from tests.integration.upkeep import bloat


@pytest.fixture
def archived(events: Database, around: Surroundings) -> Database:
    """A database with January and February 2024 archived, 20 rows each."""
    archive_two_months(events, around)
    return events


@pytest.fixture
def jobs(database: Database) -> Database:
    """A table whose indexes are mostly air."""
    bloat(database)
    return database


@pytest.fixture
def sharable(events: Database) -> Database:
    """A table large enough for several workers to share a run on it."""
    fill(events)
    return events
