"""Dated tables after archiving: what the ledger and the catalog say of them, read, dropped, put back.

known.py        dated tables the ledger knows, and what the catalog says of each
exportable.py   what an export has to know of a table
rows.py         its rows as text, from one snapshot
unchanged.py    a table locked, its rows found to be those exported
held.py         rows of theirs nobody may remove
dropping.py     a table counted, found complete and dropped, in one transaction
columns.py      which columns rows are put back into, and what stands in the way
putting_back.py the statements that put rows back
"""
