"""What a table or an index takes on disk, told at once: the server's own functions wait for whoever
has it locked, and one table that is rewritten would keep all others from being looked at.
"""

_SIZE = """
    (SELECT CASE WHEN EXISTS (
                SELECT FROM pg_locks l
                WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock'
                  AND l.database = (SELECT d.oid FROM pg_database d
                                    WHERE d.datname = current_database())
                  AND l.pid IS DISTINCT FROM pg_backend_pid()
                  AND (l.relation IN (sized.oid, sized.reltoastrelid)
                       OR l.relation IN (SELECT i.indexrelid FROM pg_index i
                                         WHERE i.indrelid IN (sized.oid, sized.reltoastrelid))))
            THEN (SELECT coalesce(sum(part.relpages), 0) * current_setting('block_size')::bigint
                  FROM pg_class part
                  WHERE part.oid IN (sized.oid, sized.reltoastrelid)
                     OR part.oid IN (SELECT i.indexrelid FROM pg_index i
                                     WHERE i.indrelid IN (sized.oid, sized.reltoastrelid)))
            ELSE {function}(sized.oid) END::bigint
     FROM pg_class sized WHERE sized.oid = {oid})
"""


def total_size(oid: str) -> str:
    """Return SQL for a table's bytes with TOAST and indexes; `oid`: SQL for its oid.

    Of a locked one as the last VACUUM or ANALYZE left it.
    """
    return _SIZE.format(function="pg_total_relation_size", oid=oid)


def own_size(oid: str) -> str:
    """Return SQL for the bytes of one index by itself, as `total_size` does."""
    return _SIZE.format(function="pg_relation_size", oid=oid)
