"""How fast, how steady and how small the engine is, against baselines measured in the same run.

    python -m benchmarks                         everything, 4 M rows, half an hour
    python -m benchmarks --rows 200000 --rounds 1 --skip-ten-million    a quick look
    python -m benchmarks.price                   the price a dry run tells, against the run itself

stage.py            the servers, the table, and a fresh copy of it for every contender
contenders.py       one raw DELETE, the loop everybody writes, and a real run of ours
contest.py          the contenders in turn, several rounds
steadiness.py       windows of one size: does the last take longer than the first?
archiving.py        the same rows moved: one statement, the usual loop, and ours
partitions.py       a whole partition, detached and dropped
workers.py          one worker, and two that share the run, each a process of its own
memory.py           peak memory of a process that deletes N rows, and four times as many
nothing_expired.py  what a run costs a database of 10 M rows when nothing is due
beside_pgbench.py   what a busy application feels of it; also a program of its own
slices.py           what cutting a window into slices costs; a program of its own
price.py            what a dry run predicts of seconds and WAL, and what the run then takes
figures.py          measured against promised: the table at the end

Only ratios travel from one machine to another; the rates are printed to be looked at.
"""
