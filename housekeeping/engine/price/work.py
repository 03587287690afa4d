"""What a run has to do, in rows and pages: what its price is worked out from."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from housekeeping.stores.postgres.storage import Server, Storage


@dataclass(frozen=True, kw_only=True)
class Going:
    """Rows of a referring table that a run changes."""

    storage: Storage
    rows: float
    updated: bool = False
    """ON DELETE SET NULL or SET DEFAULT: a new version of the row is written"""
    by_trigger: bool = False
    """further down a cascade: the foreign key's trigger deletes them, one parent at a time"""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a run has to do."""

    storage: Storage
    rows: float
    """of the purged table"""
    below: float
    """rows below the newest cutoff, whatever else they are: where the expired ones lie"""
    order: float
    """square of the correlation of heap and age, 0 to 1"""
    by_index: bool
    entries: float = 0.0
    """index entries the walks pass; of no meaning along the heap"""
    server: Server = field(default_factory=Server)
    going: Sequence[Going] = ()
    keys: int = 0
    """foreign keys that point at the table: each one's trigger looks for every row"""
    keepers: int = 0
    pinned: bool = False
    """rows are locked and looked at again before they go"""
    archived: bool = False
    """rows move to dated tables"""

    @property
    def pages(self) -> float:
        """Pages of the table that change."""
        return self.storage.pages_of(self.rows, self.below, self.order)

    @property
    def deleted_rows(self) -> float:
        """Rows of all tables that the run deletes itself: by which its windows are sized."""
        own = (part.rows for part in self.going if not part.updated and not part.by_trigger)
        return self.rows + sum(own)

    def pages_along(self, part: Going) -> float:
        """Pages of a child's rows: written about when their parents were, so they lie as near."""
        if not self.rows or not part.rows:
            return 0.0
        among = part.rows * max(1.0, self.below / self.rows)
        return part.storage.pages_of(part.rows, among, self.order)

    def moves(self, part: Going) -> bool:
        """Say whether a child's rows move to dated tables too."""
        return self.archived and not part.updated and not part.by_trigger

    def scaled(self, rows: int) -> "Work":
        """Return the same work on another number of rows."""
        by = rows / max(1.0, self.rows)
        going = [replace(part, rows=part.rows * by) for part in self.going]
        below, entries = self.below * by, self.entries * by
        return replace(self, rows=rows, below=below, entries=entries, going=going)
