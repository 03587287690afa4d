"""A user's own query: whatever they know of their database that no statistic tells."""

from dataclasses import dataclass
from typing import Any

from psycopg2 import sql

from housekeeping.policies.health import HealthLimits, Reading, Verdict
from housekeeping.stores.postgres.health.signals import Seen, own_query

_WORDS = {verdict.name.lower(): verdict for verdict in Verdict}


@dataclass(frozen=True)
class OwnSql:
    """The query's one value asks "is there a reason to wait?".

    null, false, zero and the empty text are none. true and a number above zero stop. A text says
    it itself: `go`, `slow` or `stop`, and a reason after a colon; any other text is a reason to stop.
    """

    limits: HealthLimits
    name: str = "sql"
    own: bool = True

    @property
    def measurement(self) -> sql.Composable:
        query = self.limits.sql or "SELECT NULL"
        return sql.SQL("(SELECT json_build_object('answer', {}))").format(own_query(query))

    def judge(self, seen: Seen) -> Reading:
        verdict, reason = _meant(seen.facts["answer"])
        return Reading(self.name, verdict, reason)

    def unknown(self, why: str) -> Reading:
        return Reading(self.name, Verdict.STOP, f"the policy's own health query failed: {why}")


def _meant(answer: Any) -> tuple[Verdict, str]:
    told = f"the policy's own health query answers {answer!r}"
    if isinstance(answer, bool) or answer is None:
        return (Verdict.STOP if answer else Verdict.GO), told
    if isinstance(answer, int | float):
        return (Verdict.STOP if answer > 0 else Verdict.GO), told
    if not isinstance(answer, str):  # json: who knows what was meant
        return Verdict.STOP, told
    word, _, reason = answer.partition(":")
    verdict = _WORDS.get(word.strip().lower())
    if verdict is not None:
        return verdict, reason.strip() or told
    return (Verdict.STOP, answer.strip()) if answer.strip() else (Verdict.GO, told)
