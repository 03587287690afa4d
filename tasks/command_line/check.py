"""`housekeeping check`: would every policy run? Finds out without changing a row."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from housekeeping.policies.errors import (
    EXIT_CONFIGURATION,
    ConfigurationRefused,
    HousekeepingError,
    StoreUnreachable,
)
from tasks.command_line.broker_finding import broker_finding
from tasks.command_line.console import show_table
from tasks.command_line.finding import Finding
from tasks.command_line.group import loaded_app


@click.command()
@click.option("--init", is_flag=True, help="Make the ledger (schema housekeeping) where missing.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as one JSON object.")
@click.pass_context
def check(ctx: click.Context, *, init: bool, as_json: bool) -> None:
    """Validate the configuration, connect to every store, run each policy's preflight."""
    findings = _findings(init=init)
    failed = any(finding.level == "error" for finding in findings)
    if as_json:
        from tasks.configuration import current_suite  # noqa: PLC0415 - not for --help

        shape: dict[str, Any] = {
            "success": not failed,
            "findings": [asdict(finding) for finding in findings],
            "settings": current_suite().describe(),
        }
        click.echo(json.dumps(shape))
    else:
        rows = [(f.level, f.subject, f.message) for f in findings]
        show_table("", ("", "what", "finding"), rows)
    ctx.exit(EXIT_CONFIGURATION if failed else 0)


def _findings(*, init: bool) -> list[Finding]:
    from housekeeping.policies.purge import PurgePolicy  # noqa: PLC0415 - not for --help
    from tasks.configuration import current_suite  # noqa: PLC0415

    suite = current_suite()
    findings = [_schedule(), _redis(suite.redis_url.reveal()), broker_finding(suite)]
    findings += [
        Finding("warning", section, "is valid; no operation of this version uses it yet")
        for section in suite.unused_sections()
    ]
    findings += [
        Finding("warning", f"holds.{name}", "protects nothing: no policy works on its database_url")
        for name in suite.idle_holds()
    ]
    if not suite.all_policies():
        findings.append(
            Finding(
                "warning", "policies", "no system is switched on: add [milvaion] or [tables.NAME]"
            )
        )
    purges = []
    for policy in suite.all_policies():
        told, table = _policy(policy, init=init)
        findings += told
        if table and isinstance(policy, PurgePolicy):
            purges.append((table, policy))
    findings += _conflicts(purges)
    findings += _health(suite.all_policies())
    if suite.database_url is not None:
        findings += _ledger(suite.database_url.reveal(), init=init)
    return findings


def _schedule() -> Finding:
    entries = loaded_app().conf.beat_schedule
    return Finding("ok", "schedule", f"entries: {', '.join(sorted(entries)) or 'none'}")


def _redis(url: str) -> Finding:
    from redis.exceptions import RedisError  # noqa: PLC0415 - not for --help

    from housekeeping.stores.redis.connection import connect, eviction_policy  # noqa: PLC0415
    from housekeeping.stores.redis.control import Control  # noqa: PLC0415

    try:
        policy = eviction_policy(connect(url))
    except RedisError as error:
        return Finding("error", "redis_url", f"Redis does not answer: {error}")
    if policy not in (None, "noeviction"):
        return Finding(
            "warning",
            "redis_url",
            f"maxmemory-policy is {policy}: leases and schedules can be evicted; set noeviction",
        )
    if paused := sorted(Control(connect(url)).paused()):
        told = "every task" if "*" in paused else ", ".join(paused)
        return Finding("warning", "redis_url", f"answers; paused: {told} (housekeeping resume)")
    return Finding("ok", "redis_url", "answers")


def _policy(policy: Any, *, init: bool) -> tuple[list[Finding], str]:
    """Return findings on a policy, and the table it works on where that was found."""
    from housekeeping.operations.inspection import ledger_told  # noqa: PLC0415 - not for --help
    from tasks.operations import OPERATIONS  # noqa: PLC0415

    subject = f"{policy.operation} {policy.name}"
    try:
        ledger = ledger_told(policy.database_url, make=init)
        inspected = OPERATIONS[policy.operation].inspect(policy)
    except (ConfigurationRefused, StoreUnreachable) as error:
        return [Finding("error", subject, error.message)], ""
    except Exception as error:  # noqa: BLE001 - one policy's fault must not hide the others' findings
        told = str(getattr(error, "orig", error)).strip().splitlines()[0]
        return [Finding("error", subject, told)], ""
    findings = [Finding("ok", subject, f"{inspected.told}; {ledger}")]
    findings += [Finding("warning", subject, warning) for warning in inspected.warnings]
    return findings, inspected.table


def _conflicts(purges: Sequence[tuple[str, Any]]) -> list[Finding]:
    from housekeeping.policies.conflicts import conflicts  # noqa: PLC0415 - not for --help

    return [
        Finding(
            "error" if conflict.certain else "warning",
            f"{conflict.loser.operation} {conflict.loser.name}",
            conflict.message,
        )
        for conflict in conflicts(purges)
    ]


def _health(policies: Sequence[Any]) -> list[Finding]:
    """Tell once per database how it is; once more where a policy has limits of its own."""
    from housekeeping.stores.postgres.connection import place  # noqa: PLC0415 - not for --help

    asked = dict.fromkeys(
        (p.database_url, p.pace.health) for p in policies if p.pace.health.enabled
    )
    return [
        Finding(level, f"health {place(url)}", told)
        for url, limits in asked
        for level, told in _readings(url, limits)
    ]


def _readings(url: str, limits: Any) -> list[tuple[str, str]]:
    from housekeeping.operations.inspection import health_of  # noqa: PLC0415 - not for --help
    from housekeeping.policies.health import worst  # noqa: PLC0415

    try:
        readings = health_of(url, limits)
    except Exception:  # noqa: BLE001 - why it can't be reached its policies have told
        return []
    grave = worst(readings)
    if grave is None:
        return [("ok", f"go: {'; '.join(reading.reason for reading in readings)}")]
    told = "; ".join(f"{each.signal} {each}" for each in readings if each.verdict)
    return [("warning", told)]


def _ledger(url: str, *, init: bool) -> list[Finding]:
    from housekeeping.operations.inspection import ledger_told  # noqa: PLC0415 - not for --help
    from housekeeping.stores.postgres.connection import place  # noqa: PLC0415

    try:
        return [Finding("ok", "database_url", f"{place(url)}: {ledger_told(url, make=init)}")]
    except HousekeepingError as error:
        return [Finding("error", "database_url", error.message)]
