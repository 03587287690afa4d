"""The ledger's tables, version by version. Append only: a database holds what it has been given.

run                 one row a run: who, what, when, why it stopped, totals
run_window          one row a committed window, written in the transaction that deleted its rows
target              one row a table: the fence number of the run that may write, remembered sizes
archive_table       one row a dated table of ours, its rows counted as they were moved
detached_partition  one row a partition we took out of its table, and what became of it
rebuild             one row a REINDEX CONCURRENTLY, before it begins: what it leaves is ours
split               one row a run that several workers share: what each of them has to know
shard               one row a disjoint range of such a run: who works on it, how far it is done
hold                one row a hold placed in this database; released ones stay
"""

TABLES = (
    "run",
    "run_window",
    "target",
    "archive_table",
    "detached_partition",
    "rebuild",
    "split",
    "shard",
    "hold",
)

# Append only: a database holds the versions it has been given.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE housekeeping.run (
            id uuid PRIMARY KEY, operation text NOT NULL, policy text NOT NULL, target text NOT NULL,
            task_id text, run_by text NOT NULL, started_at timestamptz NOT NULL, ended_at timestamptz,
            attempts int NOT NULL DEFAULT 1, cutoffs jsonb NOT NULL DEFAULT '{}', stop_reason text,
            success boolean, total bigint, batches int, error text, result jsonb)
        """,
        "CREATE INDEX run_started_at ON housekeeping.run (started_at DESC)",
        "CREATE INDEX run_open ON housekeeping.run (target) WHERE ended_at IS NULL",
        """
        CREATE TABLE housekeeping.run_window (
            run_id uuid NOT NULL, number int NOT NULL, target text NOT NULL, walk text NOT NULL,
            lower text, upper text, done_to text,
            fence bigint NOT NULL, rows bigint NOT NULL, counts jsonb NOT NULL,
            left_behind bigint NOT NULL DEFAULT 0, error text,
            committed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            PRIMARY KEY (run_id, number))
        """,
        "CREATE INDEX run_window_committed_at ON housekeeping.run_window (committed_at)",
        """
        CREATE TABLE housekeeping.target (
            relation text PRIMARY KEY, fence bigint NOT NULL, run_id uuid NOT NULL,
            taken_at timestamptz NOT NULL DEFAULT clock_timestamp(), sizes jsonb NOT NULL DEFAULT '{}')
        """,
    ),
    (
        """
        CREATE TABLE housekeeping.archive_table (
            relation text PRIMARY KEY, source text NOT NULL, part_of text, period text NOT NULL,
            policy text NOT NULL, key_columns text[] NOT NULL, rows bigint NOT NULL DEFAULT 0,
            made_by uuid NOT NULL, made_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            last_row_at timestamptz, exported jsonb, exported_at timestamptz, dropped_at timestamptz)
        """,
        "CREATE INDEX archive_table_source ON housekeeping.archive_table (source)",
    ),
    (
        """
        CREATE TABLE housekeeping.detached_partition (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            root text NOT NULL, parent_schema text NOT NULL, parent_name text NOT NULL,
            relation_oid oid NOT NULL, relation_schema text NOT NULL, relation_name text NOT NULL,
            bounds text NOT NULL, upper_bound text, rows bigint NOT NULL, bytes bigint NOT NULL,
            state text NOT NULL CHECK (state IN
                ('detaching', 'detached', 'dropped', 'withdrawn', 'returned', 'changed', 'gone')),
            policy text NOT NULL, run_id uuid NOT NULL, dropped_by uuid,
            wanted_at timestamptz NOT NULL DEFAULT clock_timestamp(), detached_at timestamptz,
            drop_after timestamptz, dropped_at timestamptz, error text)
        """,
        """
        CREATE UNIQUE INDEX detached_partition_open ON housekeeping.detached_partition (relation_oid)
            WHERE state IN ('detaching', 'detached')
        """,
        "CREATE INDEX detached_partition_root ON housekeeping.detached_partition (root)",
    ),
    (
        """
        CREATE TABLE housekeeping.rebuild (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, run_id uuid NOT NULL,
            table_oid oid NOT NULL, index_oid oid NOT NULL, index_name text NOT NULL,
            known oid[] NOT NULL, artefact oid, seen_at timestamptz,
            began_at timestamptz NOT NULL DEFAULT clock_timestamp(), ended_at timestamptz,
            outcome text, done boolean, bytes_before bigint, bytes_after bigint)
        """,
        "CREATE INDEX rebuild_index ON housekeeping.rebuild (index_name, began_at DESC)",
        "CREATE INDEX rebuild_open ON housekeeping.rebuild (id) WHERE ended_at IS NULL",
    ),
    (
        """
        CREATE TABLE housekeeping.split (
            run_id uuid PRIMARY KEY, target text NOT NULL, digest text NOT NULL,
            cutoffs jsonb NOT NULL, planned_at timestamptz NOT NULL, filenode bigint NOT NULL,
            blocks bigint NOT NULL, until timestamptz NOT NULL, workers text[] NOT NULL DEFAULT '{}',
            made_at timestamptz NOT NULL DEFAULT clock_timestamp(), closed_at timestamptz)
        """,
        # Its rows change with every window: room on the page keeps those changes off the index.
        """
        CREATE TABLE housekeeping.shard (
            run_id uuid NOT NULL REFERENCES housekeeping.split ON DELETE CASCADE,
            number int NOT NULL, lower bigint NOT NULL, upper bigint NOT NULL, done_to bigint NOT NULL,
            claim int NOT NULL DEFAULT 0, claimed_by text, claimed_at timestamptz,
            last_window int NOT NULL, rows bigint NOT NULL DEFAULT 0, done_at timestamptz,
            PRIMARY KEY (run_id, number)) WITH (fillfactor = 50)
        """,
    ),
    (
        """
        CREATE TABLE housekeeping.hold (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            relation text NOT NULL, condition text NOT NULL, reason text NOT NULL,
            placed_by text NOT NULL, placed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            released_by text, released_at timestamptz)
        """,
        "CREATE INDEX hold_in_force ON housekeeping.hold (id) WHERE released_at IS NULL",
    ),
    (
        """
        ALTER TABLE housekeeping.detached_partition
            ADD exported jsonb, ADD exported_at timestamptz
        """,
    ),
    (
        """
        ALTER TABLE housekeeping.detached_partition ADD to_export boolean NOT NULL DEFAULT false
        """,
    ),
)
