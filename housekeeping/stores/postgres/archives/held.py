"""Holds on archived rows: what a hold protects in a table, it protects in that table's archives."""

from sqlalchemy import Connection

from housekeeping.policies.policy import Policy
from housekeeping.stores.postgres.archives.known import ArchivedTable, oid_of_label
from housekeeping.stores.postgres.held_tables import held_whole


def held_by(connection: Connection, policy: Policy, table: ArchivedTable) -> str | None:
    """Say which hold keeps rows of a dated table; None where none does. In a transaction.

    Raises what `held_whole` raises.
    """
    source = oid_of_label(connection, table.source)
    return held_whole(connection, policy, table.oid, () if source is None else (source,))
