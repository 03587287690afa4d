"""The only rooms that talk to a store: SQL in `postgres`, Redis commands in `redis`."""
