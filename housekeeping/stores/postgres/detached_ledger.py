"""What became of the partitions we took out of their tables: intended, detached, dropped, or not.

detaching   we are about to; DETACH CONCURRENTLY can't be in a transaction with its record
detached    out of its table, and ours to drop once `drop_after` has come
dropped     gone for good
withdrawn   it never came to it: the partition is still attached
returned    somebody attached it again: no longer ours
changed     somebody renamed or moved it, so it is wanted: no longer ours
gone        somebody else dropped it
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from uuid import UUID

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.policies.errors import LeaseTaken
from housekeeping.stores.postgres.partitions import Partition
from housekeeping.stores.postgres.statement import Statement, execute, identifier
from housekeeping.stores.postgres.window_ledger import WindowLedger

_WANT = Statement(
    "ledger.want_detached",
    sql.SQL(
        """
        INSERT INTO housekeeping.detached_partition AS d
            (root, parent_schema, parent_name, relation_oid, relation_schema, relation_name, bounds,
             upper_bound, rows, bytes, state, policy, run_id, to_export)
        SELECT %(root)s, %(parent_schema)s, %(parent_name)s, %(oid)s, %(schema)s, %(name)s,
               %(bounds)s, %(upper)s, %(rows)s, %(bytes)s, 'detaching', %(policy)s, %(run_id)s::uuid,
               %(to_export)s
        WHERE EXISTS (SELECT FROM housekeeping.target
                      WHERE relation = %(root)s AND fence = %(fence)s)
        ON CONFLICT (relation_oid) WHERE state IN ('detaching', 'detached') DO UPDATE SET
            state = 'detaching', root = excluded.root, parent_schema = excluded.parent_schema,
            parent_name = excluded.parent_name, relation_schema = excluded.relation_schema,
            relation_name = excluded.relation_name, bounds = excluded.bounds,
            upper_bound = excluded.upper_bound, rows = excluded.rows, bytes = excluded.bytes,
            policy = excluded.policy, run_id = excluded.run_id, wanted_at = clock_timestamp(),
            detached_at = NULL, drop_after = NULL, exported = NULL, exported_at = NULL, error = NULL,
            to_export = excluded.to_export
        RETURNING id
        """
    ),
)
_MADE = Statement(
    "ledger.detached_made",
    # Without USAGE on the schema, looking a table up in it is an error.
    sql.SQL(
        """
        SELECT CASE WHEN n.oid IS NOT NULL AND has_schema_privilege(n.oid, 'USAGE')
                    THEN to_regclass('housekeeping.detached_partition') IS NOT NULL ELSE false END
        FROM (SELECT 1) AS always LEFT JOIN pg_namespace n ON n.nspname = 'housekeeping'
        """
    ),
)
_OPEN = Statement(
    "ledger.open_detached",
    sql.SQL(
        """
        SELECT d.id, d.root, d.parent_schema, d.parent_name, d.relation_oid, d.relation_schema,
               d.relation_name, d.bounds, d.rows, d.bytes, d.state = 'detached', d.drop_after::text,
               c.oid IS NOT NULL,
               coalesce(n.nspname = d.relation_schema AND c.relname = d.relation_name, false),
               -- by INHERIT too its rows are shown by another table
               i.parents > 0, coalesce(i.pending, false),
               -- never earlier than was said when it was detached, nor than is said now
               coalesce(d.drop_after <= clock_timestamp()
                        AND d.detached_at + %(grace)s <= clock_timestamp(), false),
               d.policy, d.run_id::text, d.wanted_at::text,
               -- as JSON: a dry run may read a ledger that is older than this column
               coalesce((to_jsonb(d) ->> 'to_export')::boolean, false)
        FROM housekeeping.detached_partition d
        LEFT JOIN pg_class c ON c.oid = d.relation_oid AND c.relkind IN ('r', 'p')
        LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
        CROSS JOIN LATERAL (SELECT count(*) AS parents, bool_or(inhdetachpending) AS pending
                            FROM pg_inherits WHERE inhrelid = c.oid) AS i
        WHERE d.root = %(root)s AND d.state IN ('detaching', 'detached')
          AND (%(id)s::bigint IS NULL OR d.id = %(id)s) ORDER BY d.id
        """
    ),
)
_CONFIRM = Statement(
    "ledger.confirm_detached",
    sql.SQL(
        """
        UPDATE housekeeping.detached_partition SET state = 'detached', run_id = %(run_id)s::uuid,
            detached_at = clock_timestamp(), drop_after = clock_timestamp() + %(grace)s
        WHERE id = %(id)s
        """
    ),
)
_SETTLE = Statement(
    "ledger.settle_detached",
    sql.SQL(
        "UPDATE housekeeping.detached_partition SET state = %(state)s, error = %(error)s"
        " WHERE id = %(id)s"
    ),
)
_DROPPED = Statement(
    "ledger.dropped_partition",
    sql.SQL(
        """
        UPDATE housekeeping.detached_partition SET state = 'dropped', error = NULL,
            dropped_at = clock_timestamp(), dropped_by = %(run_id)s::uuid WHERE id = %(id)s
        """
    ),
)
_NOTE = Statement(
    "ledger.note_detached",
    sql.SQL("UPDATE housekeeping.detached_partition SET error = %(error)s WHERE id = %(id)s"),
)
_OF_RUN = Statement(
    "ledger.partitions_of_run",
    sql.SQL(
        """
        SELECT relation_schema || '.' || relation_name AS relation, bounds, rows, bytes, drop_after,
               coalesce(dropped_by = %(run_id)s::uuid, false) AS dropped, exported ->> 'manifest'
        FROM housekeeping.detached_partition
        WHERE (run_id = %(run_id)s::uuid AND state IN ('detached', 'dropped'))
           OR dropped_by = %(run_id)s::uuid ORDER BY id
        """
    ),
)


class Fate(Enum):
    """What the catalog says of a partition the ledger holds as being or having been detached."""

    UNDONE = auto()
    """we never came to detach it"""
    PENDING = auto()
    """detaching it was cut short; FINALIZE ends that"""
    UNCONFIRMED = auto()
    """detached, and nobody has written that down yet"""
    KEPT = auto()
    """in its grace, or kept for good"""
    DUE = auto()
    """its grace is over"""
    RETURNED = auto()
    CHANGED = auto()
    GONE = auto()


@dataclass(frozen=True, kw_only=True)
class Detached:
    """A partition the ledger holds as being or having been detached."""

    id: int
    root: str
    """label of the purged table"""
    parent: tuple[str, str]
    """schema and name of the table it was attached to"""
    oid: int
    schema: str
    name: str
    bounds: str
    rows: int
    """estimate"""
    bytes: int
    drop_after: str | None
    """None: kept for good"""
    fate: Fate
    policy: str
    """that detached it"""
    run_id: str
    """of the run that did"""
    wanted_at: str
    """when the ledger first heard of it; never changes, unlike when it was detached"""
    to_export: bool = False
    """the policy that detached it said that it is to be exported before it is dropped"""

    @property
    def label(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def identifier(self) -> sql.Identifier:
        return identifier(self.schema, self.name)


@dataclass(frozen=True)
class Retired:
    """What a run did to a partition."""

    table: str
    bounds: str
    rows: int
    """estimate"""
    bytes: int
    drop_after: datetime | None
    """None: never"""
    dropped: bool
    """by this run; else it was detached by it"""
    exported_to: str | None = None
    """address of the export's manifest"""


def want_detached(
    connection: Connection,
    ledger: WindowLedger,
    policy: str,
    parent: Partition,
    partition: Partition,
    upper: str,
    rows: int,
    size: int,
    *,
    to_export: bool = False,
) -> int:
    """Write down that we are about to detach a partition; return the row's id.

    Raises LeaseTaken when a newer run has taken the table over.
    """
    made = execute(
        connection,
        _WANT,
        root=ledger.relation,
        fence=ledger.fence,
        parent_schema=parent.schema,
        parent_name=parent.name,
        oid=partition.oid,
        schema=partition.schema,
        name=partition.name,
        bounds=partition.bounds,
        upper=upper,
        rows=rows,
        bytes=size,
        policy=policy,
        run_id=str(ledger.run_id),
        to_export=to_export,
    ).scalar()
    if made is None:
        raise LeaseTaken(target=ledger.relation)
    return int(made)


def open_partitions(
    connection: Connection, root: str, grace: timedelta, only: int | None = None
) -> list[Detached]:
    """Return the partitions of a table that are neither dropped nor given up, oldest first.

    `only`: the row of this id alone.
    """
    found = execute(connection, _OPEN, root=root, grace=grace, id=only)
    return [
        Detached(
            id=row[0],
            root=row[1],
            parent=(row[2], row[3]),
            oid=row[4],
            schema=row[5],
            name=row[6],
            bounds=row[7],
            rows=row[8],
            bytes=row[9],
            drop_after=row[11],
            fate=_fate(*row[10:11], *row[12:17]),
            policy=row[17],
            run_id=row[18],
            wanted_at=row[19],
            to_export=row[20],
        )
        for row in found
    ]


def partitions_known(connection: Connection) -> bool:
    """Whether the ledger is there, and new enough to know of partitions; reads only."""
    return bool(execute(connection, _MADE).scalar_one())


def due_partitions(connection: Connection, root: str, grace: timedelta) -> list[Detached]:
    """Return the partitions of a table whose grace is over; none without a ledger."""
    if not partitions_known(connection):
        return []
    found = open_partitions(connection, root, grace)
    return [detached for detached in found if detached.fate is Fate.DUE]


def _fate(
    confirmed: bool,  # noqa: FBT001 - columns of one row
    there: bool,  # noqa: FBT001
    same_name: bool,  # noqa: FBT001
    attached: bool,  # noqa: FBT001
    pending: bool,  # noqa: FBT001
    due: bool,  # noqa: FBT001
) -> Fate:
    checks = (
        (not there, Fate.GONE),
        (not same_name, Fate.CHANGED),
        (pending and not confirmed, Fate.PENDING),
        (attached, Fate.RETURNED if confirmed else Fate.UNDONE),
        (not confirmed, Fate.UNCONFIRMED),
        (due, Fate.DUE),
    )
    return next((fate for holds, fate in checks if holds), Fate.KEPT)


def confirm_detached(
    connection: Connection, id_: int, run_id: UUID, grace: timedelta | None
) -> None:
    """Write down that a partition is detached; without a grace it is never dropped."""
    execute(connection, _CONFIRM, id=id_, run_id=str(run_id), grace=grace)


def settle_detached(connection: Connection, id_: int, state: str, error: str | None = None) -> None:
    """Give a partition up: withdrawn, returned, changed or gone."""
    execute(connection, _SETTLE, id=id_, state=state, error=error)


def note_error(connection: Connection, id_: int, error: str) -> None:
    """Write down why a partition could not be dropped yet."""
    execute(connection, _NOTE, id=id_, error=error)


def record_drop(connection: Connection, id_: int, run_id: UUID) -> None:
    """Write a drop down, in its own transaction."""
    execute(connection, _DROPPED, id=id_, run_id=str(run_id))


def retired_by(connection: Connection, run_id: UUID) -> list[Retired]:
    """Return the partitions a run detached or dropped."""
    return [Retired(*row) for row in execute(connection, _OF_RUN, run_id=str(run_id))]
