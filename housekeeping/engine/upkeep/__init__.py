"""What a maintenance run decides and does: VACUUM, ANALYZE, REINDEX."""
