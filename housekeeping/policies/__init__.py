"""Frozen, checked data: what may be deleted, how gently, what came of it, and what can go wrong.

purge.py    which rows of a table expire, and what protects one
pace.py     budgets, targets, timeouts
health.py   from where on a database is too busy for us
hours.py    maintenance windows
result.py   RunResult and StopReason: what every run returns
events.py   the event stream: logs, metrics and progress subscribe to it
errors.py   what can go wrong, and what to do about it
"""
