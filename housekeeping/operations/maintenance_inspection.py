"""What `housekeeping check` asks of a maintenance policy: what a run would do tonight."""

from housekeeping.engine.upkeep.surveying import Survey, survey
from housekeeping.engine.upkeep.warnings import warnings_of
from housekeeping.operations.inspection import Inspected
from housekeeping.operations.maintenance import LOOKING
from housekeeping.policies.errors import PolicyRefused
from housekeeping.policies.maintenance import MaintenancePolicy
from housekeeping.stores.postgres.connection import connected, guarded
from housekeeping.stores.postgres.upkeep.server import refuse_standby

_MOST_NEEDS = 5


def inspect_maintenance(policy: MaintenancePolicy) -> Inspected:
    """Look at every table of a policy. Raises PolicyRefused where a run would leave one undone."""
    with connected(policy.database_url, "hk:check") as connection:
        refuse_standby(connection, policy)
        with guarded(connection, LOOKING, reading=True, any_plan=True):
            found = survey(connection, policy)
            warnings = warnings_of(connection, found, policy)
    if faults := _faults(found, policy):
        raise PolicyRefused(f"{policy.name}: " + "\n".join(faults))
    return Inspected(_told(found), warnings)


def _faults(found: Survey, policy: MaintenancePolicy) -> list[str]:
    missing = [
        f"there is no table {name}. {hint}".strip()
        for name, hint in found.missing.items()
        if not (policy.optional and found.tables)
    ]
    return missing + [f"{t.state.label}: {t.error}" for t in found.tables if t.error is not None]


def _told(found: Survey) -> str:
    needs = [
        f"{need.work} {table.state.label} ({need.reason})"
        for table in found.tables
        for need in table.needs
    ]
    shown = ", ".join(needs[:_MOST_NEEDS])
    if len(needs) > _MOST_NEEDS:
        shown += f" and {len(needs) - _MOST_NEEDS} more"
    tables = f"{len(found.tables)} tables"
    if found.not_ours:
        tables += f" ({found.not_ours} more may not be maintained by this role)"
    return f"{tables}; needed now: {shown or 'nothing'}"
