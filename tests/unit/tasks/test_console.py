"""What people copy from a terminal stays in one piece, however narrow it is."""

import pytest
from rich.console import Console

from tasks.command_line import console
from tasks.command_line.console import row_lines, show_list, show_result, show_table, table_row

RUN = "0d5fe9d8-9e9c-5d3f-8a55-9d1b40f9b3a7"
COLUMNS = ("started", "operation", "policy", "stopped", "rows", "error", "by", "run")
ROW = (
    "2026-08-01 02:00:01", "occurrences.retention", "milvaion", "exhausted (not all done)", 41230,
    None, "beat@jobs-7f9c", RUN,
)  # fmt: skip


def shown(width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(console, "out", Console(force_terminal=True, width=width))
    show_list(COLUMNS, [ROW, ROW])
    return capsys.readouterr().out


def test_where_a_table_does_not_fit_each_row_is_lines_of_its_own_with_whole_cells(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = shown(80, monkeypatch, capsys).splitlines()

    assert max(map(len, lines)) <= 80
    assert lines[: len(lines) // 2] == [
        "2026-08-01 02:00:01",
        "  operation occurrences.retention  policy milvaion",
        "  stopped exhausted (not all done)  rows 41230  by beat@jobs-7f9c",
        f"  run {RUN}",
    ]


def test_where_it_fits_it_is_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = shown(200, monkeypatch, capsys)

    assert "│" in text
    assert sum(RUN in line for line in text.splitlines()) == 2


@pytest.mark.parametrize("width", [10, 40, 80])
def test_no_cell_is_ever_cut(width: int) -> None:
    text = "\n".join(row_lines(COLUMNS, ROW, width))

    assert all(str(cell) in text for cell in ROW if cell is not None)
    assert "error" not in text


def test_in_a_pipe_a_message_is_sentences_and_a_list_its_entries(
    capsys: pytest.CaptureFixture[str],
) -> None:
    message = "events: no index\nleads with a. Build it first:\n\nCREATE INDEX"
    entry = {"table": "t", "done": "kept", "rows": 3, "bytes": 8, "why": "held"}
    show_table("", ("a", "b", "c", "d"), [(message,), table_row(entry)])

    assert capsys.readouterr().out.splitlines()[1:] == [
        "events: no index leads with a. Build it first: CREATE INDEX",
        "t\tkept\trows 3; bytes 8\theld",
    ]


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("paused", "`housekeeping resume tables.purge` lets it run"),
        ("locked", "web: another run works on its table; `housekeeping history` shows it"),
    ],
)
def test_a_run_that_did_not_begin_says_why_and_how_to_go_on(
    reason: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = {
        "operation": "tables.purge", "policy": "web", "stop_reason": reason, "success": False,
        "total_deleted": 0, "details": {}, "batches": 0, "seconds": 0.1, "warnings": [],
    }  # fmt: skip
    show_result(run)

    assert told in capsys.readouterr().err
