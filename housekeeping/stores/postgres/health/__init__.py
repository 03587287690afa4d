"""Health signals: is the database well enough for housekeeping to go on?

signals.py      what a signal is: a measurement in SQL, and a judgement of it by a policy's limits
replication.py  how far standbys are behind; unknown is too far
slots.py        replication slots that more WAL would break
waiters.py      sessions that wait for a lock
vacuum.py       a vacuum on the run's own table
archiver.py     WAL segments that are not archived yet
wal_rate.py     WAL the server writes a second
disk.py         space left where the server keeps its data
own_sql.py      a query of the user's own
sampling.py     all of them measured, in one short transaction that reads

Measurements are facts as JSON takes them, so that runs share them through Redis; each run judges them
by its own limits.
"""
