"""What a run will take: rows, seconds, WAL, and what would make it cheaper."""
