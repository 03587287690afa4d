"""Files of users' own: exported archives on any file system or object store fsspec knows.

place.py          where they go: a URL, opened; its secrets stay in here
row_text.py       rows as PostgreSQL's text, and the checksum of many of them
csv_rows.py       rows as CSV; jsonl_rows.py: as JSON lines; parquet_rows.py: as Parquet
formats.py        a writer and a reader for every format and compression
manifest.py       what an export says of itself
exports.py        an export written, checked, found again
"""
