"""What of a dated table would come back now, told by one reading statement that takes 5 s at most."""

from collections import Counter

from psycopg2 import sql
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from housekeeping.policies.pace import Pace
from housekeeping.stores.postgres.archives.columns import Destination
from housekeeping.stores.postgres.archives.putting_back import (
    KEY_TAKEN,
    PARENT_MISSING,
    RESTORED,
)
from housekeeping.stores.postgres.conditions import Condition, condition_of
from housekeeping.stores.postgres.connection import guarded
from housekeeping.stores.postgres.statement import Statement, execute, identifier

_ARCHIVED, _SOURCE = "hk_batch", "hk_row"


def foreseen(
    connection: Connection, to: Destination, archive: sql.Identifier, pace: Pace, *, parents: bool
) -> Counter[str] | None:
    """Count the rows of a dated table that would come back, and those that would stay and why.

    At most so many come back: what other constraints and triggers refuse is not known before.
    `parents`: false where parents may come back before them. None where it would take too long.
    """
    body = sql.SQL(
        """
        SELECT count(*) FILTER (WHERE looked.fits AND NOT looked.taken),
               count(*) FILTER (WHERE looked.fits AND looked.taken),
               count(*) FILTER (WHERE NOT looked.fits)
        FROM (SELECT {fits} AS fits, {taken} AS taken FROM {archive} AS hk_batch) AS looked
        """
    ).format(
        archive=archive,
        taken=_taken(to),
        fits=sql.SQL(" AND ").join(
            [sql.SQL("true")]
            + [each.present(_ARCHIVED) for each in to.parents if parents and not each.itself]
        ),
    )
    try:
        with guarded(connection, pace, reading=True, any_plan=True):
            found = execute(connection, Statement("archives.foresee", body)).one()
    except DBAPIError as error:
        if condition_of(error) in (Condition.TOO_SLOW, Condition.CONTENDED):
            return None
        raise
    return Counter(dict(zip((RESTORED, KEY_TAKEN, PARENT_MISSING), map(int, found), strict=True)))


def _taken(to: Destination) -> sql.Composable:
    if not to.key:
        return sql.SQL("false")
    same = sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(identifier(_SOURCE, each), identifier(_ARCHIVED, each))
        for each in to.key
    )
    return sql.SQL("EXISTS (SELECT FROM {} AS hk_row WHERE {})").format(to.facts.identifier, same)
