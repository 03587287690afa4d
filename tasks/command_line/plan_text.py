"""A dry run's plan as lines for people; `--json` has all of it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.filesize import decimal

_MINUTE, _HOUR = 60, 3_600


def plan_lines(plan: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a dry run found: the walk, what goes along, the price, statements, advice."""
    if "walks" not in plan:
        return
    yield from _ways(plan)
    if "cost" in plan:
        yield from _priced(plan)
    elif plan.get("statement"):
        yield f"statement: {plan['statement']}"


def _ways(plan: Mapping[str, Any]) -> Iterator[str]:
    walks, indexes = ", ".join(plan["walks"]), ", ".join(plan.get("indexes", ())) or "none"
    yield f"walk: {walks} ({plan['because']}); indexes in the age's order: {indexes}"
    for whole in plan.get("whole_partitions", ()):
        told = f"{whole['table']}, about {whole['rows']:,} rows, {decimal(whole['bytes'])}"
        yield f"goes whole: {told}: {whole['bounds']}"
    for leaf in plan.get("by_rows", ()):
        yield f"by rows: {leaf}"
    if "counted" in plan:
        yield f"counted: {plan['counted'].replace('_', ' ')} ({plan['counted_because']})"


def _priced(plan: Mapping[str, Any]) -> Iterator[str]:
    yield from _cost(plan["cost"])
    for branch in plan["fan_out"]:
        yield f"foreign key: {_branch(branch)}"
    if "archive" in plan:
        yield from _archive(plan["archive"])
    yield from _statements(plan["statements"])
    for advice in plan["advice"]:
        yield f"advice: {advice['because']}"
        yield f"    {advice['sql']};"


def _cost(cost: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"price: about {_duration(cost['seconds'])}, {_duration(cost['worked_seconds'])} of it work,"
        f" in {cost['batches']:,} batches; {decimal(cost['wal_bytes'])} of WAL"
        f" (by {cost['basis']}, {cost['times_the_model']:g} x the model)"
    )
    if cost["runs"] > 1:
        yield f"    more than its time budget: {cost['runs']} runs"
    yield (
        f"after it: {cost['dead_rows']:,} dead rows; {decimal(cost['reusable_bytes'])} to be used"
        " again once they are vacuumed"
    )
    if "dropped_bytes" in cost:
        yield f"    {decimal(cost['dropped_bytes'])} back to the disk once whole partitions are dropped"
    for line in cost["vacuum"]:
        yield f"    {line};"


def _branch(branch: Mapping[str, Any]) -> str:
    through = f" through {', '.join(branch['through'])}" if branch["through"] else ""
    told = f"{branch['table']}{through} (on delete {branch['on_delete']}): "
    if branch["rows"] is None:
        return f"{told}a row it refers to is kept"
    about = "" if branch["counted"] == "exact" else "about "
    kept = ", unless they keep theirs" if branch.get("keeps") else ""
    return f"{told}{about}{branch['rows']:,} rows {branch['effect']}{kept}"


def _archive(archive: Mapping[str, Any]) -> Iterator[str]:
    more = "" if archive["complete"] else ", and those of later windows"
    tables = [
        table["table"] + ("" if table["exists"] else " (to be made)") for table in archive["tables"]
    ]
    yield f"moves to: {', '.join(tables) or 'no table'}{more}"


def _statements(statements: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the first walk's statements; further walks send the same over other rows."""
    walks = list(dict.fromkeys(statement["walk"] for statement in statements))
    for statement in statements:
        if statement["walk"] != walks[0]:
            continue
        if statement is statements[0]:
            lower, upper = statement["window"]
            yield f"statements of the first window, {lower or 'the beginning'} to {upper}:"
        yield f"    {statement['sql']}"
        for line in statement["explain"]:
            yield f"        {line}"
        if "not_explained" in statement:
            yield f"        {statement['not_explained']}"
    if len(walks) > 1:
        yield f"    and the same for {', '.join(walks[1:])}"


def _duration(seconds: float) -> str:
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    if seconds < _HOUR:
        return f"{seconds / _MINUTE:.1f} min"
    return f"{seconds / _HOUR:.1f} h"
