"""VACUUM, ANALYZE, REINDEX: what a database needs, and doing it without being in anybody's way.

tables.py     what the statistics say of each table: sizes, dead rows, ages, our privileges
indexes.py    its B-tree indexes, and how large a fresh one would be by the planner's statistics
density.py    the same, measured by pgstattuple where it is installed
horizon.py    who keeps dead rows from being removed, and old transactions
headroom.py   how much the server's disk has left
stepping.py   one VACUUM, ANALYZE or REINDEX on a connection of its own, watched
vacuuming.py  the VACUUM and ANALYZE we send
rebuilding.py REINDEX CONCURRENTLY of one index, and what it leaves when it is cut short
leftovers.py  indexes an interrupted rebuild left: ours are dropped, others' are told
rebuilds.py   the ledger of rebuilds: the intent before, the outcome after
"""
