"""Every schedule, one entry each; times are UTC. An entry runs when its system is switched on.

Milvaion's are those of its documentation. Change one on a live system with
`housekeeping schedule set NAME CRON`; an entry that leaves this file leaves Redis.
"""

from tasks.schedule import Entry, publish

SCHEDULE = publish(
    Entry("milvaion-occurrence-retention", "tasks.occurrences.retention", "0 2 * * *"),
    Entry("milvaion-dead-letter-cleanup", "tasks.dead_letters.cleanup", "0 4 * * 0"),
    Entry("milvaion-occurrence-archive", "tasks.occurrences.archive", "0 4 1 * *"),
    Entry("tables-archive", "tasks.tables.archive", "0 1 * * *"),
    Entry("drop-expired-archives", "tasks.database.drop_expired_archives", "0 5 2 * *"),
    Entry("milvaion-database-maintenance", "tasks.database.maintain", "0 3 * * 0"),
    Entry("tables-purge", "tasks.tables.purge", "30 1 * * *"),
)
