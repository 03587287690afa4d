"""A dry run's plan, for people."""

from typing import Any

from tasks.command_line.plan_text import plan_lines

COST = {
    "seconds": 5_400.0, "worked_seconds": 2_700.0, "rest_seconds": 2_700.0, "batches": 11_000,
    "stop_reason": "time_budget", "runs": 2, "wal_bytes": 13_697_480, "pages": 2_770,
    "dead_rows": 61_120, "reusable_bytes": 18_336_000, "vacuum_advised": True,
    "vacuum": ['VACUUM (INDEX_CLEANUP ON, ANALYZE) "public"."t"'],
    "basis": "the last 5 runs of this policy", "times_the_model": 1.5,
}  # fmt: skip
STATEMENT = {
    "walk": "index:done", "window": [None, "2026-01-01"], "name": "purge.delete",
    "sql": "DELETE FROM t", "explain": ["Delete on t", "  ->  Index Scan"], "reads_whole": [],
}  # fmt: skip
BRANCH = {
    "table": "public.logs", "constraint": "k", "through": [], "on_delete": "cascade",
    "effect": "deleted", "rows": 3, "counted": "estimate", "per_row": 1.5, "indexed": True,
}  # fmt: skip
PLAN: dict[str, Any] = {
    "walks": ["index:done", "index:failed"], "indexes": [], "because": "asked for",
    "counted": "estimate", "counted_because": "it would take long", "cost": COST,
    "fan_out": [
        BRANCH,
        {**BRANCH, "rows": None, "effect": "keeps its row", "on_delete": "no action"},
        {**BRANCH, "through": ["public.logs"], "table": "public.lines"},
    ],
    "archive": {"tables": [{"table": "public.a_2026_01", "exists": False}], "complete": False},
    "statements": [STATEMENT, {**STATEMENT, "walk": "index:failed", "sql": "DELETE again"}],
    "advice": [{"sql": 'ANALYZE "t"', "because": "never analyzed"}],
}  # fmt: skip


def test_a_plan_is_told_in_human_units() -> None:
    text = "\n".join(plan_lines(PLAN))

    assert "1.5 h, 45.0 min of it work, in 11,000 batches; 13.7 MB of WAL" in text
    assert "more than its time budget: 2 runs" in text
    assert "61,120 dead rows; 18.3 MB" in text


def test_lines_to_paste_stand_alone_and_end_in_a_semicolon() -> None:
    lines = list(plan_lines(PLAN))

    assert '    ANALYZE "t";' in lines
    assert '    VACUUM (INDEX_CLEANUP ON, ANALYZE) "public"."t";' in lines


def test_the_first_walks_statements_are_shown_with_their_plans() -> None:
    lines = list(plan_lines(PLAN))

    assert lines.index("    DELETE FROM t") == lines.index("        Delete on t") - 1
    assert "    DELETE again" not in lines
    assert "    and the same for index:failed" in lines


def test_foreign_keys_and_the_archive_are_told() -> None:
    text = "\n".join(plan_lines(PLAN))

    assert "public.logs (on delete cascade): about 3 rows deleted" in text
    assert "a row it refers to is kept" in text
    assert "public.lines through public.logs" in text
    assert "moves to: public.a_2026_01 (to be made), and those of later windows" in text


def test_a_plan_of_a_run_that_failed_is_told_as_far_as_it_goes() -> None:
    bare = {key: PLAN[key] for key in ("walks", "indexes", "because", "counted", "counted_because")}

    assert len(list(plan_lines(bare))) == 2


def test_plans_of_other_operations_are_told_as_far_as_they_go() -> None:
    restore = {
        "walks": ["x"],
        "because": "asked for",
        "statement": "INSERT, nothing is overwritten",
    }

    assert list(plan_lines(restore))[-1] == "statement: INSERT, nothing is overwritten"
    assert list(plan_lines({"tables": []})) == []
