"""The engine: how a run goes, whatever it works on.

run.py        lease, ledger row, attempts, result: what every operation shares
planning.py   which walks a purge takes, and why
walks.py      the windows of a walk: heap blocks, or stretches of an index
purging.py    the loop: one window after the other until a reason to stop
sizing.py     how large the next window is, so that it takes the time it should
pacing.py     budgets, rests, and the objections that end a run early
"""
