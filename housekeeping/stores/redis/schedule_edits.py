"""What operators have changed in the schedule, kept apart from it.

The scheduler writes every entry anew from the code when it starts, so a change made there would
be gone. Changes are kept here and applied on top:

    housekeeping:schedule:edits    HASH, entry's name -> {"cron": "15 2 * * *", "enabled": false}
"""

import json
import logging
from dataclasses import dataclass

from redis import Redis

_log = logging.getLogger("housekeeping")

_EDITS = "housekeeping:schedule:edits"


@dataclass(frozen=True)
class ScheduleEdit:
    """What an operator wants of one entry; None leaves it to the code."""

    cron: str | None = None
    """minute hour day-of-month month day-of-week"""
    enabled: bool | None = None

    def __bool__(self) -> bool:
        """Whether anything is edited at all."""
        return self != ScheduleEdit()


class ScheduleEdits:
    """The edits of all entries, by name. Whether there is such an entry, the schedule knows."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    def all(self) -> dict[str, ScheduleEdit]:
        """Return every edit; one that can't be read is logged and left out."""
        edits: dict[str, ScheduleEdit] = {}
        for field, value in self._client.hgetall(_EDITS).items():
            name = _text(field)
            try:
                edits[name] = _decoded(_text(value))
            except (TypeError, ValueError) as error:
                _log.error("the schedule edit of %r can't be read and is ignored: %s", name, error)
        return edits

    def save(self, name: str, edit: ScheduleEdit) -> None:
        """Keep an edit in place of what was kept for this entry; an empty one is forgotten."""
        facts = {"cron": edit.cron, "enabled": edit.enabled}
        if edit:
            kept = {key: value for key, value in facts.items() if value is not None}
            self._client.hset(_EDITS, name, json.dumps(kept))
        else:
            self.forget(name)

    def forget(self, name: str) -> None:
        """Leave an entry to the code again; nothing happens when it already is."""
        self._client.hdel(_EDITS, name)


def _decoded(value: str) -> ScheduleEdit:
    facts = json.loads(value)
    if not isinstance(facts, dict):
        raise TypeError(f"expected an object, got {value}")
    cron, enabled = facts.get("cron"), facts.get("enabled")
    if not isinstance(cron, str | None) or not isinstance(enabled, bool | None):
        raise TypeError(f"expected a text as cron and true or false as enabled, got {value}")
    return ScheduleEdit(cron, enabled)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
