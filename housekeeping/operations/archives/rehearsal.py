"""What a run of archive expiry would do: for a dry run, and for `housekeeping check`."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from housekeeping.engine.run import Request
from housekeeping.operations.archives.dated_groups import (
    Group,
    groups_of,
    refuse_too_short,
    sources_of,
)
from housekeeping.operations.inspection import Inspected
from housekeeping.policies.archives import ArchiveExpiryPolicy
from housekeeping.policies.result import RunResult, StopReason
from housekeeping.stores.files.exports import Exports
from housekeeping.stores.postgres.archives.dropping import Kept, counting, require_complete
from housekeeping.stores.postgres.archives.held import held_by
from housekeeping.stores.postgres.archives.known import ArchivedTable, dependents
from housekeeping.stores.postgres.archives.rows import fingerprint
from housekeeping.stores.postgres.connection import connected, guarded
from housekeeping.stores.postgres.cutoffs import database_now
from housekeeping.stores.postgres.ledger_schema import ledger_missing

_APPLICATION = "hk:check"


@dataclass(frozen=True)
class _Look:
    """What is there, and what would become of it."""

    entries: tuple[dict[str, Any], ...]
    tables: int
    """that would go"""
    rows: int
    kept: int
    """tables that should go and would stay"""

    @property
    def whys(self) -> tuple[str, ...]:
        kept = (entry for entry in self.entries if entry["done"] == "would stay")
        return tuple(f"{entry['table']} would stay: {entry['why']}" for entry in kept)


def rehearse(
    policy: ArchiveExpiryPolicy, request: Request, connection: Connection, exports: Exports | None
) -> RunResult:
    """Tell what would go and what would not, and why; every table past its age is counted."""
    with guarded(connection, counting(policy.pace), reading=True, any_plan=True):
        now = database_now(connection)
        look = _look(connection, policy, counted=True)
    plan = {
        "walks": ["oldest month first"],
        "indexes": [],
        "would_drop": look.tables,
        "details": {"rows_dropped": look.rows, "kept_incomplete": look.kept},
        "because": f"months that ended {policy.keep_for.days} days ago or earlier"
        + (f"; exported to {exports.place.shown} before" if exports else ""),
        "counted_all": True,
        "statement": "DROP TABLE, one a transaction, without CASCADE",
    }
    return RunResult(
        operation=policy.operation,
        policy=policy.name,
        run_id=str(request.run_id),
        stop_reason=StopReason.DRY_RUN,
        total_key=policy.total_key,
        details=dict.fromkeys(policy.detail_keys, 0),
        cutoffs={"expired": now - policy.keep_for},
        warnings=(*policy.doubts, *look.whys),
        dry_run=True,
        plan=plan,
        tables=look.entries,
    )


def inspect_archive_expiry(policy: ArchiveExpiryPolicy) -> Inspected:
    """Find out whether a policy can run; tries the place of exports by a small file of its own.

    Raises the PolicyRefused a run would raise, and ExportUnreachable.
    """
    if policy.export is not None:
        Exports(policy.export).place.require()
    with (
        connected(policy.database_url, _APPLICATION) as connection,
        guarded(connection, policy.pace, reading=True, any_plan=True),
    ):
        look = _look(connection, policy, counted=False)
    known = len(look.entries)
    told = f"{policy.works_on}: {look.tables} of {known} dated tables would go, {look.rows:,} rows"
    return Inspected(told, (*policy.doubts, *look.whys))


def _look(connection: Connection, policy: ArchiveExpiryPolicy, *, counted: bool) -> _Look:
    refuse_too_short(policy)
    now = database_now(connection)
    entries: list[dict[str, Any]] = []
    tables = rows = kept = 0
    known = [] if ledger_missing(connection) else sources_of(connection, policy)
    for source in known:
        for group in groups_of(connection, source):
            due = group.due(policy)
            if due is None or due > now:
                why = f"until {due:%Y-%m-%d %H:%M} UTC" if due else "its rows have no month"
                entries += [_entry(table, "young", why) for table in group.tables]
                continue
            faults = _faults(connection, policy, group, counted=counted)
            kept += len(faults)
            for table in group.tables:
                why = faults.get(table.relation) or ("its month is not complete" if faults else "")
                entries.append(_entry(table, "would stay" if why else "would be dropped", why))
            if not faults:
                tables, rows = tables + len(group.tables), rows + group.rows
    return _Look(tuple(entries), tables, rows, kept)


def _faults(
    connection: Connection, policy: ArchiveExpiryPolicy, group: Group, *, counted: bool
) -> dict[str, str]:
    faults = {}
    for table in group.tables:
        fault = table.fault()
        if fault is None and (depending := dependents(connection, table.oid)):
            fault = f"it is depended on by {', '.join(depending)}"
        if fault is None:
            fault = held_by(connection, policy, table)
        if fault is None and counted:
            try:
                require_complete(table.rows, fingerprint(connection, table.identifier))
            except Kept as kept:
                fault = kept.why
        if fault is not None:
            faults[table.relation] = fault
    return faults


def _entry(table: ArchivedTable, done: str, why: str) -> dict[str, Any]:
    entry = {"table": table.relation, "period": table.period, "done": done, "rows": table.rows}
    return {**entry, "bytes": table.bytes, **({"why": why} if why else {})}
