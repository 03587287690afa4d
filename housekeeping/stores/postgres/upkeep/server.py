"""What maintenance asks of the server as a whole."""

from psycopg2 import sql
from sqlalchemy import Connection

from housekeeping.policies.errors import StandbyRefused
from housekeeping.policies.maintenance import MaintenancePolicy
from housekeeping.policies.pace import Pace
from housekeeping.stores.postgres.connection import guarded, place
from housekeeping.stores.postgres.statement import Statement, execute

_RECOVERING = Statement("upkeep.is_standby", sql.SQL("SELECT pg_is_in_recovery()"))


def refuse_standby(connection: Connection, policy: MaintenancePolicy) -> None:
    """Raise StandbyRefused where the server only follows another."""
    with guarded(connection, Pace(), reading=True, any_plan=True):
        standby = execute(connection, _RECOVERING).scalar_one()
    if standby:
        raise StandbyRefused(policy=policy.name, database=place(policy.database_url))
