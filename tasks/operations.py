"""Which engine operation each task runs."""

from housekeeping.operations.purge import purge
from tasks.running import Operation

OPERATIONS: dict[str, Operation] = {
    "occurrences.retention": purge,
    "dead_letters.cleanup": purge,
    "tables.purge": purge,
}
